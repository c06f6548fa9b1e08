/**
 * Makes a group with a long history. Its newest points by the product's own store: one delta after the other is appended, applied,
 * and leaves its history file. What lies before them, by the store's own writer of history files alone: the same files, without
 * the journal and the replica that once led to them. Nothing is synced, which changes no byte and takes minutes instead of hours.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { recordHeaderBytes, runBytesMax } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import { makeRecord, sealRecordBytes, type RecordView } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { GroupFolder, undoFileName } from '../../replica-target/store/group-folder.ts';
import { HistoryReader } from '../../replica-target/store/history-reader.ts';
import { HistoryWriter } from '../../replica-target/store/history-writer.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupStore } from '../../replica-target/store/store.ts';
import { Content, seededDraw } from './disk-image.ts';

export interface HistoryOrder {
  readonly groupsFolder: string;
  readonly sizeBytes: number;
  /** Whether the first point writes every byte of the disk. */
  readonly isFilled: boolean;
  /** By the store. */
  readonly pointCount: number;
  /** Before those, as history files alone. */
  readonly olderCount: number;
  /** Of each point but a first that fills: in scattered blocks of 4 KiB. */
  readonly pointBytes: number;
  say(line: string): void;
}

export interface MadeHistory {
  readonly name: string;
  readonly replicaPath: string;
  /** The point so many before the newest. */
  pointBack(count: number): PointId;
}

/** `writeBytes`: of each scattered block, 4 KiB when absent. */
export type DeltaOrder = Pick<HistoryOrder, 'sizeBytes' | 'pointBytes'> & { readonly writeBytes?: number };

const blockBytes = 4096;
const name = 'guest';
/** Of the points by the store; the older ones are of term 1. */
export const term = 2;
/** Points that may wait to be applied. */
const backlogMax = 64;

export async function makePointHistory(order: HistoryOrder): Promise<MadeHistory> {
  const groupId = randomBytes(16).toString('hex');
  const sourceId = randomBytes(16).toString('hex');
  // A batch is a point, so that every point is a boundary, as when points come one by one.
  const registry = await openRegistry({ disk: withoutSync(nodeDisk), clock: nodeClock, folder: order.groupsFolder, options: { batchPoints: 1, journalKeepBytes: 0 } });
  const store = await registry.announce(sourceId, { group: groupId, name, term, rpoMs: 1000, hardware: {}, disks: [{ disk: 0, name: 'vda', sizeBytes: order.sizeBytes }] });
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  const deltas = new Deltas(order, groupId);
  const count = order.pointCount + (order.isFilled ? 1 : 0);
  for (let point = 1; point <= count; point++) {
    await Promise.all(deltas.next(order.isFilled && point === 1).map((record) => store.append(record)));
    if (point % 1000 === 0) order.say(`  ${point} of ${count} points`);
    if (point % backlogMax === 0) await untilApplied(store);
  }
  await untilApplied(store);
  const { disks } = store.report();
  await registry.close();
  await writeOlder(order, new GroupFolder(join(order.groupsFolder, groupId)), groupId);
  return {
    name, replicaPath: disks[0]!.replicaPath,
    pointBack: (back) => (back < count ? { term, point: count - back } : { term: 1, point: order.olderCount - (back - count) }),
  };
}

/** History files of `olderCount` points, and the oldest file of the store's made to begin where they end. */
async function writeOlder({ olderCount, sizeBytes, pointBytes, say }: HistoryOrder, folder: GroupFolder, groupId: string): Promise<void> {
  if (olderCount === 0) return;
  const disk = withoutSync(nodeDisk);
  const sizes = [{ disk: 0, sizeBytes }];
  const draw = seededDraw(11);
  const pool = new Content(5).random(2 * runBytesMax);
  const facts = (point: number) => ({ term: 1, point, kind: 'crash' as const, cutAtMs: 1_600_000_000_000 + point * 1000, arrivedAtMs: 1_600_000_000_000 + point * 1000, changedBytes: pointBytes });
  for (let point = 1; point <= olderCount; point++) {
    const writer = await HistoryWriter.begin(disk, folder, { groupId, from: point === 1 ? null : { term: 1, point: point - 1 }, to: { term: 1, point }, disksBefore: sizes, disksAfter: sizes, points: [facts(point)] });
    const blocks = new Set<number>();
    while (blocks.size < pointBytes / blockBytes) blocks.add(draw(sizeBytes / blockBytes));
    for (const block of [...blocks].sort((a, b) => a - b)) {
      const from = draw(runBytesMax);
      pool.copy(await writer.room(blockBytes), 0, from, from + blockBytes);
      writer.data(0, block * blockBytes, blockBytes);
    }
    await writer.seal();
    if (point % 1000 === 0) say(`  ${point} of ${olderCount} older points`);
  }
  const first = await HistoryReader.open(disk, folder, undoFileName(null, { term, point: 1 }));
  const writer = await HistoryWriter.begin(disk, folder, { ...first.facts, from: { term: 1, point: olderCount } });
  for (let index = 0; index < first.count; index++) {
    const entry = first.entry(index);
    const bytes = await first.run(entry);
    if (bytes === null) { await writer.zero(entry.disk, entry.offset, entry.length); continue; }
    bytes.copy(await writer.room(entry.length));
    writer.data(entry.disk, entry.offset, entry.length);
  }
  await writer.seal();
  await first.close();
  await disk.remove(folder.undo(undoFileName(null, { term, point: 1 })));
}

export function untilApplied(store: GroupStore): Promise<void> {
  const isThere = (): boolean => store.report().applied?.point === store.holding().newest?.point;
  if (isThere()) return Promise.resolve();
  return new Promise((resolve) => {
    const stop = store.onApplied(() => {
      if (!isThere()) return;
      stop();
      resolve();
    });
  });
}

/** The records of one delta after the other: of a whole disk, or of so many bytes in scattered blocks. */
export class Deltas {
  readonly #order: DeltaOrder;
  readonly #groupId: string;
  readonly #draw = seededDraw(7);
  readonly #pool = new Content(3).random(2 * runBytesMax);
  #point = 0;

  constructor(order: DeltaOrder, groupId: string) {
    this.#order = order;
    this.#groupId = groupId;
  }

  next(isWhole: boolean): RecordView[] {
    const { sizeBytes, pointBytes, writeBytes = blockBytes } = this.#order;
    const base = this.#point === 0 ? null : { term, point: this.#point };
    const point = ++this.#point;
    const records: RecordView[] = [];
    const head = { codec: 'none', disk: 0, groupId: this.#groupId, deltaId: BigInt(point), point, term, offset: 0, length: 0 } as const;
    records.push(makeRecord({ ...head, kind: 'open', sequence: 0 }, encodePayload({ base })));
    const length = isWhole ? runBytesMax : writeBytes;
    const runs = (isWhole ? sizeBytes : pointBytes) / length;
    for (let run = 0; run < runs; run++) {
      const offset = isWhole ? run * length : this.#draw(sizeBytes / writeBytes) * writeBytes;
      const bytes = Buffer.allocUnsafe(recordHeaderBytes + length);
      const from = this.#draw(runBytesMax);
      this.#pool.copy(bytes, recordHeaderBytes, from, from + length);
      records.push(sealRecordBytes(bytes, { ...head, kind: 'data', sequence: records.length, offset, length }));
    }
    records.push(makeRecord({ ...head, kind: 'seal', sequence: records.length }, encodePayload({
      base, kind: 'crash', cutAtMs: 1_700_000_000_000 + point * 1000, records: records.length + 1, changedBytes: runs * length, disks: [{ disk: 0, sizeBytes }],
    })));
    return records;
  }
}

function withoutSync(disk: Disk): Disk {
  const nothing = (): Promise<void> => Promise.resolve();
  return Object.assign(passing(disk), {
    syncFolder: nothing,
    open: async (path: string, mode: 'read' | 'readWrite' | 'create') => Object.assign(passing(await disk.open(path, mode)), { sync: nothing }),
  });
}

/** All of it as it is, to be changed in parts. */
function passing<T extends Disk | DiskFile>(target: T): T {
  const own: Record<PropertyKey, unknown> = {};
  return new Proxy(target, {
    get: (of, key) => {
      if (key in own) return own[key];
      const value: unknown = Reflect.get(of, key);
      return typeof value === 'function' ? value.bind(of) as unknown : value;
    },
    set: (_, key, value) => {
      own[key] = value;
      return true;
    },
  });
}
