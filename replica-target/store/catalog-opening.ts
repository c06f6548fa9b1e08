/**
 * Brings a group's catalog level with its files at the start. The catalog is an index and nothing else: what it lacks is filled
 * in from the headers of the history files, the seals in the journal and the mark; what the files do not hold is dropped; and one
 * that cannot be read, or that lacks what it cannot lack, is moved aside and made anew. A fault of the files is not the catalog's.
 */
import assert from 'node:assert/strict';
import type { Logger } from 'pino';
import type { Disk } from '../../host/disk.ts';
import { isFault } from '../../journal/fault.ts';
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import { readPruned, type HistoryFile } from '../points/history-set.ts';
import type { PendingDelta } from './applier.ts';
import { Catalog, DamagedCatalog, type CatalogLevel, type HistoryEntry, type PointFacts } from './catalog.ts';
import type { AppliedMark } from './group-facts.ts';
import type { GroupFolder } from './group-folder.ts';
import { HistoryReader } from './history-reader.ts';
import type { RecoveredJournal } from './journal-recovery.ts';
import { pointFacts } from './point-facts.ts';
import { errorCode } from './store-fault.ts';

export interface CatalogPlace {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly level: (path: string) => CatalogLevel;
  readonly log: Logger | null;
}

export interface CataloguedFiles {
  /** Names of the history files that lead back from the replica, oldest first. */
  readonly line: readonly string[];
  readonly journal: RecoveredJournal;
  readonly mark: AppliedMark;
}

export interface OpenedCatalog {
  readonly catalog: Catalog;
  readonly history: readonly HistoryFile[];
  readonly pending: readonly PendingDelta[];
  readonly newest: PointFacts | null;
}

/** Faults: those of the files, STORE_CORRUPT and STORE_NEWER. */
export async function openCatalog(place: CatalogPlace, files: CataloguedFiles): Promise<OpenedCatalog> {
  try {
    return await openLevel(place, files);
  } catch (error) {
    if (isFault(error)) throw error;
    place.log?.warn({ err: error, path: place.folder.catalog }, 'the catalog cannot be used; it is moved aside and made anew from the files');
    await moveAside(place);
    return openLevel(place, files);
  }
}

async function openLevel(place: CatalogPlace, files: CataloguedFiles): Promise<OpenedCatalog> {
  const { folder, level, log } = place;
  const opened = level(folder.catalog);
  try {
    const catalog = await Catalog.open(opened, (error) => log?.error({ err: error, path: folder.catalog }, 'the catalog cannot be written; it is filled again at the next start'));
    const history = await levelHistories(place, catalog, files);
    return { catalog, history, ...(await levelPoints(catalog, files)) };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** One that was moved aside before is forgotten: it says nothing that the files do not. */
async function moveAside({ disk, folder }: CatalogPlace): Promise<void> {
  const aside = `${folder.catalog}.damaged`;
  try {
    for (const name of await disk.list(aside)) await disk.remove(`${aside}/${name}`);
    await disk.remove(aside);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  try {
    await disk.rename(folder.catalog, aside);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  await disk.makeFolder(folder.catalog);
  await disk.syncFolder(folder.path);
}

async function levelHistories({ disk, folder }: CatalogPlace, catalog: Catalog, { line, mark }: CataloguedFiles): Promise<readonly HistoryFile[]> {
  const known = new Map((await catalog.histories()).map((entry) => [entry.name, entry]));
  const used = new Set(line);
  for (const entry of known.values()) if (!used.has(entry.name)) catalog.dropHistory(entry);
  const history: HistoryEntry[] = [];
  for (const name of line) {
    let entry = known.get(name);
    if (entry === undefined) {
      const { facts, sizeBytes } = await HistoryReader.facts(disk, folder, name);
      entry = { name, sizeBytes, from: facts.from, to: facts.to };
      catalog.putHistory(entry);
      for (const point of facts.points) if (await catalog.point(point) === null) catalog.putPoint(point);
    }
    history.push(entry);
  }
  // A boundary of the history is a point as long as its file is there.
  for (const { name, to } of history) if (await catalog.point(to) === null) throw new DamagedCatalog(`it has ${name} without its point`);
  const { applied, point } = mark;
  if (applied !== null && point !== undefined && await catalog.point(applied) === null) {
    assert(comparePoints(point, applied) === 0, 'the mark has the facts of its own point');
    catalog.putPoint(point);
  }
  const oldest = history[0] === undefined ? applied : history[0].from;
  // The point that the oldest file begins at is in no header: its file was given up, and left it there.
  const given = oldest === null ? undefined : (await readPruned(disk, folder))?.point;
  if (given !== undefined && isSamePoint(given, oldest) && await catalog.point(given) === null) catalog.putPoint(given);
  if (oldest !== null) await catalog.dropBefore(oldest);
  return history;
}

async function levelPoints(catalog: Catalog, { journal, mark }: CataloguedFiles): Promise<{ pending: PendingDelta[]; newest: PointFacts | null }> {
  await catalog.dropAfter(journal.chain.newest);
  let newest = mark.applied === null ? null : await catalog.point(mark.applied);
  let previous = await pointOrNull(catalog, journal.sealed[0]?.seal.base ?? null);
  const pending: PendingDelta[] = [];
  for (const delta of journal.sealed) {
    const known = await catalog.point(delta.id);
    const facts = known ?? pointFacts(delta, previous, null);
    if (known === null) catalog.putPoint(facts);
    previous = facts;
    newest = facts;
    if (mark.applied === null || comparePoints(delta.id, mark.applied) > 0) pending.push({ ...delta, facts });
  }
  return { pending, newest };
}

async function pointOrNull(catalog: Catalog, id: PointId | null): Promise<PointFacts | null> {
  return id === null ? null : catalog.point(id);
}
