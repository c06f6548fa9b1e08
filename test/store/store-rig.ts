/** What the tests of the store share: a registry on a simulated disk, and what its files hold compared with a model guest. */
import { MemoryLevel } from 'memory-level';
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { RecordView } from '../../journal/record.ts';
import { GroupFolder, parseUndoName } from '../../replica-target/store/group-folder.ts';
import type { StoreOptions } from '../../replica-target/store/store-options.ts';
import { HistoryReader } from '../../replica-target/store/history-reader.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { Durable, GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import type { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import type { Disk } from '../../host/disk.ts';
import { groupId, sourceId, type ModelGuest } from './model-guest.ts';

export const groups = '/groups';
export const folder = new GroupFolder(`${groups}/${groupId}`);
/** Small, so that a few records fill a segment and a few points a window. */
export const smallOptions: Partial<StoreOptions> = { segmentBytes: 32 * 1024, journalKeepBytes: 0, batchBytes: 16 * 1024 };

export function openOn(disk: Disk, options: Partial<StoreOptions> = {}, clock = new SimulatedClock()): Promise<GroupRegistry> {
  return openRegistry({ disk, clock, folder: groups, catalog: () => new MemoryLevel<string, string>(), options: { ...smallOptions, ...options } });
}

/** A group whose first sync of empty disks is done. */
export async function openSeeded(disk: Disk, guest: ModelGuest, options: Partial<StoreOptions> = {}, clock = new SimulatedClock()): Promise<{ registry: GroupRegistry; store: GroupStore; clock: SimulatedClock }> {
  const registry = await openOn(disk, options, clock);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  return { registry, store, clock };
}

export async function appendAll(store: GroupStore, records: readonly RecordView[]): Promise<Durable | null> {
  const durables = await Promise.all(records.map((record) => store.append(record)));
  return durables.at(-1) ?? null;
}

/** Null when the replica is the model at `point`; else what differs. */
export function replicaFault(disk: SimulatedDisk, guest: ModelGuest, point: PointId | null): string | null {
  return contentFault(guest.at(point).map((_, index) => disk.contentOf(folder.image(index))), guest, point);
}

export function contentFault(contents: readonly Buffer[], guest: ModelGuest, point: PointId | null): string | null {
  for (const [index, expected] of guest.at(point).entries()) {
    const found = contents[index]!;
    if (found.length !== expected.length) return `disk ${index} at ${point === null ? 'no point' : formatPoint(point)}: ${found.length} bytes, expected ${expected.length}`;
    if (found.equals(expected)) continue;
    const at = found.findIndex((byte, offset) => byte !== expected[offset]);
    return `disk ${index} at ${point === null ? 'no point' : formatPoint(point)}: byte ${at} is ${found[at]}, expected ${expected[at]}`;
  }
  return null;
}

/** Walks back from the replica through all history files, comparing every boundary. Returns the boundaries that it saw. */
export async function walkBack(disk: SimulatedDisk, guest: ModelGuest, applied: PointId): Promise<string[]> {
  const byEnd = new Map<string, string>();
  for (const name of await disk.list(folder.history)) {
    const parsed = parseUndoName(name);
    if (parsed !== null) byEnd.set(formatPoint(parsed.to), name);
  }
  const contents = guest.at(applied).map((_, index) => disk.contentOf(folder.image(index)));
  const seen: string[] = [];
  let at: PointId | null = applied;
  while (at !== null) {
    const name = byEnd.get(formatPoint(at));
    if (name === undefined) break;
    const reader = await HistoryReader.open(disk, folder, name);
    for (const { disk: index, sizeBytes } of reader.facts.disksBefore) {
      const resized = Buffer.alloc(sizeBytes);
      contents[index]!.copy(resized);
      contents[index] = resized;
    }
    for (let i = 0; i < reader.count; i++) {
      const entry = reader.entry(i);
      const bytes = await reader.run(entry);
      if (bytes === null) contents[entry.disk]!.fill(0, entry.offset, entry.offset + entry.length); else bytes.copy(contents[entry.disk]!, entry.offset);
    }
    await reader.close();
    at = reader.facts.from;
    const fault = contentFault(contents, guest, at);
    if (fault !== null) throw new Error(`walking back through ${name}: ${fault}`);
    seen.push(at === null ? '0.0' : formatPoint(at));
  }
  return seen;
}
