/**
 * Everything that happens before a group may be asked anything: its small files, its history and its journal are read, what
 * a crash left is repaired or refused by name, and the catalog is brought level with the files. What is returned is durable.
 */
import type { Logger } from 'pino';
import type { Disk } from '../../host/disk.ts';
import { isSamePoint, type PointId } from '../../journal/point.ts';
import type { PendingDelta } from './applier.ts';
import { planHistoryChain } from '../points/history-chain-plan.ts';
import { readPruned, type HistoryFile } from '../points/history-set.ts';
import type { Catalog, CatalogLevel, PointFacts } from './catalog.ts';
import { openCatalog } from './catalog-opening.ts';
import { readMark, type AppliedMark } from './group-facts.ts';
import { parseUndoName, type GroupFolder } from './group-folder.ts';
import { HistoryReader } from './history-reader.ts';
import { unsealedSuffix } from './history-writer.ts';
import { recoverJournal, type RecoveredJournal } from './journal-recovery.ts';
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
  /** The line that leads back from the replica, that of `redo` included. */
  readonly history: readonly HistoryFile[];
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
  const line = await historyLine(options, undoNames, redo?.to ?? mark.applied);
  const { catalog, history, pending, newest } = await openCatalog(options, { line, journal, mark });
  const floor = journalFloor(journal);
  if (floor !== null) catalog.thin(floor);
  return { mark, journal, pending, redo, newest, catalog, history, touched };
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

/** What a crash left of merging and dropping is removed; what is left is the line that leads back from `end`, oldest first. */
async function historyLine({ disk, folder, log }: OpeningOptions, names: readonly string[], end: PointId | null): Promise<readonly string[]> {
  const { chain, leftovers, strays } = planHistoryChain(names.map((name) => ({ name, ...parseUndoName(name)! })), end, (await readPruned(disk, folder))?.prunedTo ?? null);
  for (const { name } of leftovers) await disk.remove(folder.undo(name));
  if (strays.length > 0) log?.error({ path: folder.history, first: strays[0]?.name, count: strays.length }, 'history files below a gap cannot be used; older points are lost unless the missing file comes back');
  return chain.map(({ name }) => name);
}
