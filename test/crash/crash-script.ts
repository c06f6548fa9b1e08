/**
 * A fixed life of a group for the crash tests: first sync, points, parts, torn deltas, resizes. Made once, then told to a store
 * from wherever that store stands, as a source does: it asks what is held and goes on from there.
 */
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import type { RecordView } from '../../journal/record.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import type { GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { ModelGuest, seedRecord, sourceId } from '../store/model-guest.ts';
import { makeDice } from '../../scripts/sim/dice.ts';

const KiB = 1024;
const seedDelta = 0xaan;

interface Step {
  readonly announcement: GroupAnnouncement;
  readonly records: readonly RecordView[];
  readonly to: PointId;
  /** Sends only so many records and tears the delta off, before it is sent whole. */
  readonly tornAfter: number | null;
}

/** What a source was told to be durable. */
export interface Acknowledged {
  isAnnounced: boolean;
  isSeeded: boolean;
  newest: PointId | null;
  /** Parts of the delta after `newest`. */
  parts: number;
  /** The delta after `newest` was begun, and may be whole. */
  sent: PointId | null;
}

export interface CrashScript {
  readonly guest: ModelGuest;
  readonly steps: readonly Step[];
  readonly last: PointId;
}

export function makeCrashScript(seed: number, points: number): CrashScript {
  const dice = makeDice(seed);
  const guest = new ModelGuest([32 * KiB, 16 * KiB]);
  for (const disk of [0, 1]) Buffer.alloc(2 * KiB, 0xee).copy(guest.disks[disk]!, 4 * KiB);
  guest.snapshots.set('0.0', guest.disks.map((bytes) => Buffer.from(bytes)));
  const steps: Step[] = [];
  for (let point = 1; point <= points; point++) {
    const runs = 1 + dice.integer(5);
    for (let run = 0; run < runs; run++) {
      const disk = dice.integer(2);
      const size = guest.disks[disk]!.length;
      const offset = dice.integer(size / 512 - 8) * 512;
      const length = (1 + dice.integer(8)) * 512;
      if (dice.chance(0.25)) guest.zero(disk, offset, length); else guest.write(disk, offset, Buffer.from(Array.from({ length }, (_, i) => (point * 16 + run + i) % 251)));
    }
    if (point % 5 === 3) guest.resize(1, (8 + dice.integer(24)) * KiB);
    const records = guest.cut({ isCompressed: dice.chance(0.3), ...(point % 4 === 2 ? { runsPerPart: 2 } : {}) });
    steps.push({ announcement: guest.announcement(), records, to: guest.newest!, tornAfter: dice.chance(0.3) ? dice.integer(records.length) : null });
  }
  return { guest, steps, last: guest.newest! };
}

export function nothingAcknowledged(): Acknowledged {
  return { isAnnounced: false, isSeeded: false, newest: null, parts: 0, sent: null };
}

/** Plays the script from where the store stands, writing down what was acknowledged. Rejects when the store does. */
export async function play(registry: GroupRegistry, { steps, guest }: CrashScript, acknowledged: Acknowledged): Promise<GroupStore> {
  const first = steps[0]!.announcement;
  const sized = (sizes: readonly Buffer[]): GroupAnnouncement => ({ ...first, disks: first.disks.map((disk, index) => ({ ...disk, sizeBytes: Math.max(disk.sizeBytes, sizes[index]!.length) })) });
  const store = await registry.announce(sourceId, sized(guest.at(null)));
  acknowledged.isAnnounced = true;
  if (store.holding().seed !== 'done') {
    await store.announce(sourceId, { ...first, disks: first.disks.map((disk, index) => ({ ...disk, sizeBytes: guest.at(null)[index]!.length })) });
    await store.seedBegin(seedDelta.toString(16).padStart(16, '0'));
    await Promise.all([0, 1].map((disk) => store.seedRecord(seedRecord(disk, 4 * KiB, Buffer.alloc(2 * KiB, 0xee), seedDelta))));
    await store.seedEnd();
  }
  acknowledged.isSeeded = true;
  for (const step of steps) {
    const { newest } = store.holding();
    if (newest !== null && comparePoints(step.to, newest) <= 0) continue;
    // A disk that shrank is announced at its larger size first: the delta's earlier parts may lie there.
    await store.announce(sourceId, { ...step.announcement, disks: step.announcement.disks.map((disk) => ({ ...disk, sizeBytes: 64 * KiB })) });
    if (!isSamePoint(acknowledged.newest, newest)) Object.assign(acknowledged, { newest, parts: 0 });
    acknowledged.sent = step.to;
    const from = store.holding().open?.nextSequence ?? 0;
    if (step.tornAfter !== null && from === 0) {
      await send(store, step.records.slice(0, step.tornAfter), acknowledged);
      await store.cutTorn();
    }
    await send(store, step.records.slice(store.holding().open?.nextSequence ?? 0), acknowledged);
  }
  return store;
}

async function send(store: GroupStore, records: readonly RecordView[], acknowledged: Acknowledged): Promise<void> {
  const sent = records.map(async (record) => {
    const durable = await store.append(record);
    if (durable === null) return;
    if (durable.part === undefined) Object.assign(acknowledged, { newest: { term: durable.term, point: durable.point }, parts: 0 });
    else acknowledged.parts = durable.part;
  });
  const outcomes = await Promise.allSettled(sent);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
