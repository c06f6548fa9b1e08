/**
 * A guest without QEMU: disks as plain buffers, writes that are remembered until they are cut into a delta, and the content of
 * every disk at every point. The naive model that the store is compared with.
 */
import { compressSync } from 'snappy';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import { makeRecord, sealRecordBytes, type RecordView } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';

export const groupId = '00112233445566778899aabbccddeeff';
export const sourceId = 'ffeeddccbbaa99887766554433221100';

interface Run { readonly disk: number; readonly offset: number; readonly length: number; readonly bytes: Buffer | null }

export interface DeltaOptions {
  readonly deltaId?: bigint;
  /** Ends a part after so many runs. */
  readonly runsPerPart?: number;
  readonly isCompressed?: boolean;
  readonly term?: number;
}

export class ModelGuest {
  readonly disks: Buffer[];
  /** Content of each disk at each point, and before the first at '0.0'. */
  readonly snapshots = new Map<string, readonly Buffer[]>();
  newest: PointId | null = null;
  term = 1;
  /** By so much its points are cut later than one a second. */
  laterMs = 0;
  #runs: Run[] = [];
  #deltas = 0n;

  constructor(sizes: readonly number[]) {
    this.disks = sizes.map((size) => Buffer.alloc(size));
    this.snapshots.set('0.0', this.#snapshot());
  }

  announcement(changes: Partial<GroupAnnouncement> = {}): GroupAnnouncement {
    return {
      group: groupId, name: 'vm1', term: this.term, rpoMs: 1000, hardware: { machine: 'q35' },
      disks: this.disks.map((bytes, disk) => ({ disk, name: `drive${disk}`, sizeBytes: bytes.length })), ...changes,
    };
  }

  write(disk: number, offset: number, bytes: Buffer): void {
    bytes.copy(this.disks[disk]!, offset);
    this.#runs.push({ disk, offset, length: bytes.length, bytes });
  }

  zero(disk: number, offset: number, length: number): void {
    this.disks[disk]!.fill(0, offset, offset + length);
    this.#runs.push({ disk, offset, length, bytes: null });
  }

  resize(disk: number, size: number): void {
    const resized = Buffer.alloc(size);
    this.disks[disk]!.copy(resized);
    this.disks[disk] = resized;
    // As a capture does that asks for the disks' extents: nothing is sent of what is not there any more.
    this.#runs = this.#runs.flatMap((run) => {
      if (run.disk !== disk || run.offset + run.length <= size) return [run];
      if (run.offset >= size) return [];
      return [{ ...run, length: size - run.offset, bytes: run.bytes?.subarray(0, size - run.offset) ?? null }];
    });
  }

  nextPoint(term = this.term): PointId {
    return { term, point: this.newest?.term === term ? this.newest.point + 1 : 1 };
  }

  /** The records of the next point, which becomes the newest. */
  cut(options: DeltaOptions = {}): RecordView[] {
    const term = options.term ?? this.term;
    const { point } = this.nextPoint(term);
    const deltaId = options.deltaId ?? ++this.#deltas + 0xabcd000000000000n;
    const records: RecordView[] = [];
    const head = (kind: 'open' | 'zero' | 'part' | 'seal', disk = 0, offset = 0, length = 0) =>
      ({ kind, codec: 'none', disk, groupId, deltaId, point, term, sequence: records.length, offset, length }) as const;
    records.push(makeRecord(head('open'), encodePayload({ base: this.newest })));
    let parts = 0;
    for (const [index, run] of this.#runs.entries()) {
      records.push(run.bytes === null ? makeRecord(head('zero', run.disk, run.offset, run.length)) : dataRecord({ ...head('zero', run.disk, run.offset, run.length) }, run.bytes, options.isCompressed === true));
      if (options.runsPerPart !== undefined && (index + 1) % options.runsPerPart === 0) records.push(makeRecord(head('part'), encodePayload({ part: ++parts })));
    }
    records.push(makeRecord(head('seal'), encodePayload({
      base: this.newest, kind: 'crash', cutAtMs: 1_700_000_000_000 + point * 1000 + this.laterMs, records: records.length + 1,
      changedBytes: this.#runs.reduce((total, { length }) => total + length, 0),
      disks: this.disks.map((bytes, disk) => ({ disk, sizeBytes: bytes.length })),
    })));
    this.#runs = [];
    this.newest = { term, point };
    this.snapshots.set(formatPoint(this.newest), this.#snapshot());
    return records;
  }

  at(point: PointId | null): readonly Buffer[] {
    return this.snapshots.get(point === null ? '0.0' : formatPoint(point))!;
  }

  #snapshot(): Buffer[] {
    return this.disks.map((bytes) => Buffer.from(bytes));
  }
}

export function dataRecord(header: Omit<Parameters<typeof makeRecord>[0], 'kind' | 'codec'>, bytes: Buffer, isCompressed: boolean): RecordView {
  const packed = isCompressed ? compressSync(bytes) : bytes;
  const isSmaller = packed.length < bytes.length;
  const payload = isSmaller ? packed : bytes;
  const whole = Buffer.alloc(recordHeaderBytes + payload.length);
  payload.copy(whole, recordHeaderBytes);
  return sealRecordBytes(whole, { ...header, kind: 'data', codec: isSmaller ? 'snappy' : 'none' });
}

export function seedRecord(disk: number, offset: number, bytes: Buffer, deltaId: bigint): RecordView {
  return dataRecord({ disk, groupId, deltaId, point: 0, term: 1, sequence: 0, offset, length: bytes.length }, bytes, false);
}
