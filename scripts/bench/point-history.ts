/**
 * Makes a group with a long history, by the product's own store: one delta after the other is appended, applied, and leaves its
 * history file. Only that nothing is synced, which changes no byte and takes minutes instead of an hour.
 */
import { randomBytes } from 'node:crypto';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { recordHeaderBytes, runBytesMax } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import { makeRecord, sealRecordBytes, type RecordView } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupStore } from '../../replica-target/store/store.ts';
import { Content, seededDraw } from './disk-image.ts';

export interface HistoryOrder {
  readonly groupsFolder: string;
  readonly sizeBytes: number;
  /** Whether the first point writes every byte of the disk. */
  readonly isFilled: boolean;
  readonly pointCount: number;
  /** Of each point but a first that fills: in scattered blocks of 4 KiB. */
  readonly pointBytes: number;
  say(line: string): void;
}

export interface MadeHistory { readonly name: string; readonly groupId: string; readonly newest: PointId; readonly replicaPath: string; readonly historyBytes: number }

const blockBytes = 4096;
const name = 'guest';
/** Points that may wait to be applied. */
const backlogMax = 64;

export async function makePointHistory(order: HistoryOrder): Promise<MadeHistory> {
  const groupId = randomBytes(16).toString('hex');
  const sourceId = randomBytes(16).toString('hex');
  // A batch is a point, so that every point is a boundary, as when points come one by one.
  const registry = await openRegistry({ disk: withoutSync(nodeDisk), clock: nodeClock, folder: order.groupsFolder, options: { batchPoints: 1, journalKeepBytes: 0 } });
  const store = await registry.announce(sourceId, { group: groupId, name, term: 1, rpoMs: 1000, hardware: {}, disks: [{ disk: 0, name: 'vda', sizeBytes: order.sizeBytes }] });
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
  const { disks, historyBytes } = store.report();
  const newest = store.holding().newest!;
  await registry.close();
  return { name, groupId, newest, replicaPath: disks[0]!.replicaPath, historyBytes };
}

function untilApplied(store: GroupStore): Promise<void> {
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

class Deltas {
  readonly #order: HistoryOrder;
  readonly #groupId: string;
  readonly #draw = seededDraw(7);
  readonly #pool = new Content(3).random(2 * runBytesMax);
  #point = 0;

  constructor(order: HistoryOrder, groupId: string) {
    this.#order = order;
    this.#groupId = groupId;
  }

  next(isWhole: boolean): RecordView[] {
    const { sizeBytes, pointBytes } = this.#order;
    const base = this.#point === 0 ? null : { term: 1, point: this.#point };
    const point = ++this.#point;
    const records: RecordView[] = [];
    const head = { codec: 'none', disk: 0, groupId: this.#groupId, deltaId: BigInt(point), point, term: 1, offset: 0, length: 0 } as const;
    records.push(makeRecord({ ...head, kind: 'open', sequence: 0 }, encodePayload({ base })));
    const length = isWhole ? runBytesMax : blockBytes;
    const runs = (isWhole ? sizeBytes : pointBytes) / length;
    for (let run = 0; run < runs; run++) {
      const offset = isWhole ? run * length : this.#draw(sizeBytes / blockBytes) * blockBytes;
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
