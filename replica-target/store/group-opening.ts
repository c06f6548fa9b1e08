/**
 * Everything that happens before a group may be asked anything: its small files, its history and its journal are read, what
 * a crash left is repaired or refused by name, and the catalog is brought level with the files. What is returned is durable.
 */
import type { Logger } from 'pino';
import type { Disk } from '../../host/disk.ts';
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import type { PendingDelta } from './applier.ts';
import { Catalog, type CatalogLevel, type HistoryEntry, type PointFacts } from './catalog.ts';
import { readMark, type AppliedMark } from './group-facts.ts';
import { parseUndoName, type GroupFolder } from './group-folder.ts';
import { HistoryReader } from './history-reader.ts';
import { unsealedSuffix } from './history-writer.ts';
import { recoverJournal, type RecoveredJournal, type SealedDelta } from './journal-recovery.ts';
import { corrupt } from './store-fault.ts';
import { TouchedBlocks } from './touched-blocks.ts';

export interface OpeningOptions {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly segmentBytes: number;
  /** Null for a simulated or unusual set-up without one; else opened here. */
  readonly level: (path: string) => CatalogLevel;
  readonly log: Logger | null;
}

export interface OpenedGroup {
  readonly mark: AppliedMark;
  readonly journal: RecoveredJournal;
  readonly pending: readonly PendingDelta[];
  readonly redo: { readonly to: PointId; readonly name: string; readonly sizeBytes: number } | null;
  readonly newest: PointFacts | null;
  readonly catalog: Catalog;
  readonly touched: TouchedBlocks;
}

export async function openGroup(options: OpeningOptions): Promise<OpenedGroup> {
  const { disk, folder, groupId, segmentBytes } = options;
  const mark = await readMark(disk, folder);
  const touched = new TouchedBlocks();
  const journal = await recoverJournal({
    disk, folder, groupId, segmentBytes, applied: mark.applied,
    onRun: (header) => { if (header === null) touched.clear(); else touched.add(header.disk, header.offset, header.length); },
  });
  const undoNames = await sealedHistories(options);
  const redo = await findRedo(options, mark, undoNames);
  const catalog = await openCatalog(options);
  await levelHistories(options, catalog, undoNames);
  const { pending, newest } = await levelPoints(catalog, journal, mark);
  const floor = journalFloor(journal);
  if (floor !== null) catalog.thin(floor);
  return { mark, journal, pending, redo, newest, catalog, touched };
}

/** The newest point of which the journal may have lost records; null when it has them all. */
export function journalFloor(journal: Pick<RecoveredJournal, 'segments'>): PointId | null {
  const first = journal.segments[0]?.start;
  return first === undefined ? null : first.open ?? first.newest;
}

/** Removes what was never sealed. */
async function sealedHistories({ disk, folder }: OpeningOptions): Promise<string[]> {
  const sealed: string[] = [];
  for (const name of await disk.list(folder.history)) {
    if (name.endsWith(unsealedSuffix)) await disk.remove(folder.undo(name));
    else if (parseUndoName(name) !== null) sealed.push(name);
  }
  return sealed;
}

/** A sealed history file that starts at the mark: its batch may have reached the replica, in part or whole. */
async function findRedo({ disk, folder }: OpeningOptions, mark: AppliedMark, names: readonly string[]): Promise<OpenedGroup['redo']> {
  const candidates = names.filter((name) => isSamePoint(parseUndoName(name)!.from, mark.applied));
  const name = candidates[0];
  if (name === undefined) return null;
  if (candidates.length > 1) throw corrupt(folder.history, 0, `two files begin at the applied point: ${candidates.join(', ')}`);
  const reader = await HistoryReader.open(disk, folder, name);
  await reader.close();
  // Its name may not be durable yet: the process may have ended between the renaming and the sync.
  await disk.syncFolder(folder.history);
  return { to: reader.facts.to, name, sizeBytes: reader.sizeBytes };
}

async function openCatalog({ disk, folder, level, log }: OpeningOptions): Promise<Catalog> {
  const onFailure = (error: unknown): void => { log?.error({ err: error, path: folder.catalog }, 'the catalog cannot be written; it is filled again at the next start'); };
  try {
    return await Catalog.open(level(folder.catalog), onFailure);
  } catch (error) {
    // An index that cannot be read is thrown away: all that it said is in the files.
    log?.warn({ err: error, path: folder.catalog }, 'the catalog cannot be read and is made anew');
    for (const name of await disk.list(folder.catalog)) await disk.remove(`${folder.catalog}/${name}`);
    return Catalog.open(level(folder.catalog), onFailure);
  }
}

async function levelHistories({ disk, folder }: OpeningOptions, catalog: Catalog, names: readonly string[]): Promise<void> {
  const known = new Map((await catalog.histories()).map((entry) => [entry.name, entry]));
  for (const entry of known.values()) if (!names.includes(entry.name)) catalog.dropHistory(entry);
  for (const name of names) {
    if (known.has(name)) continue;
    const { facts, sizeBytes } = await HistoryReader.facts(disk, folder, name);
    const entry: HistoryEntry = { name, sizeBytes, from: facts.from, to: facts.to };
    catalog.putHistory(entry);
    for (const point of facts.points) if (await catalog.point(point) === null) catalog.putPoint(point);
  }
}

async function levelPoints(catalog: Catalog, journal: RecoveredJournal, mark: AppliedMark): Promise<{ pending: PendingDelta[]; newest: PointFacts | null }> {
  const { newest: sealedNewest } = journal.chain;
  await catalog.dropAfter(sealedNewest);
  let newest = mark.applied === null ? null : await catalog.point(mark.applied);
  let previous: PointFacts | null = null;
  const pending: PendingDelta[] = [];
  for (const delta of journal.sealed) {
    const known = await catalog.point(delta.id);
    const facts: PointFacts = known ?? pointFacts(delta, previous, null);
    if (known === null) catalog.putPoint(facts);
    previous = facts;
    newest = facts;
    if (mark.applied === null || comparePoints(delta.id, mark.applied) > 0) pending.push({ ...delta, facts });
  }
  return { pending, newest };
}

/** Neither time runs backward. `arrivedAtMs` null: when it arrived was lost with a crash; it was no earlier than these. */
export function pointFacts({ id, seal }: Pick<SealedDelta, 'id' | 'seal'>, previous: PointFacts | null, arrivedAtMs: number | null): PointFacts {
  const cutAtMs = Math.max(seal.cutAtMs, previous?.cutAtMs ?? 0);
  return {
    ...id, kind: seal.kind, cutAtMs,
    arrivedAtMs: Math.max(arrivedAtMs ?? seal.cutAtMs, previous?.arrivedAtMs ?? 0),
    changedBytes: seal.changedBytes,
    ...(seal.label === undefined ? {} : { label: seal.label }),
  };
}
