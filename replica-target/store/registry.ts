/**
 * All groups of a target's data folder, which one process has at a time. A group is a folder named by its id; a folder without
 * `group.json` is what a crash left of one that was being made, a folder named `forgotten-` of one that was being removed.
 */
import { dirname, join } from 'node:path';
import { Level } from 'level';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk, DiskLock } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import { announcedDisks } from './announcement-plan.ts';
import { termFault } from './announcement-plan.ts';
import { BrokenGroup } from './broken-group.ts';
import type { CatalogLevel } from './catalog.ts';
import { groupFormatVersion, readFacts, writeFacts, type GroupFacts } from './group-facts.ts';
import { GroupFolder, segmentNumbers } from './group-folder.ts';
import { FileGroupStore } from './group-store.ts';
import { copyImage } from './image-copy.ts';
import { reclaimable, type ReclaimedImages } from './reclaimed-images.ts';
import type { GroupRegistry, GroupStore } from './store.ts';
import { defaultOptions, type GroupStoreDeps, type StoreOptions } from './store-options.ts';
import { mayBeLocked } from '../points/holds.ts';
import { errorCode, storeFault } from './store-fault.ts';

export interface RegistryOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Absolute; made if its parent is there. */
  readonly folder: string;
  /** Opens a group's catalog at a path; level on the real disk when not given. */
  readonly catalog?: (path: string) => CatalogLevel;
  readonly log?: Logger;
  readonly options?: Partial<StoreOptions>;
  /** See `GroupStoreDeps.reclaim`. */
  readonly reclaim?: GroupStoreDeps['reclaim'];
}

const groupName = /^[0-9a-f]{32}$/;
const forgottenPrefix = 'forgotten-';

/** Faults: STORE_LOCKED. A group that cannot be used does not fail this: it is there, and refuses. */
export async function openRegistry(options: RegistryOptions): Promise<GroupRegistry> {
  const { disk, clock, folder, log = null } = options;
  await makeFolder(disk, folder);
  await disk.syncFolder(dirname(folder));
  let lock: DiskLock;
  try {
    lock = await disk.lock(join(folder, 'lock'));
  } catch (error) {
    if (errorCode(error) === 'EWOULDBLOCK') throw new Fault('STORE_LOCKED', `another process has ${folder} open`, { folder }, error);
    throw error;
  }
  try {
    const deps: GroupStoreDeps = {
      disk, clock, log, options: { ...defaultOptions, ...options.options },
      ...(options.reclaim === undefined ? {} : { reclaim: options.reclaim }),
      level: options.catalog ?? ((path) => new Level<string, string>(path)),
    };
    const registry = new FileGroupRegistry(deps, folder, lock);
    await registry.load();
    return registry;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

type Group = FileGroupStore | BrokenGroup;

class FileGroupRegistry implements GroupRegistry {
  readonly #d: GroupStoreDeps;
  readonly #folder: string;
  readonly #lock: DiskLock;
  readonly #groups = new Map<string, Group>();
  /** Whose making failed, maybe with `group.json` in place. */
  readonly #halfMade = new Set<string>();
  /** Groups are made and removed one at a time. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(deps: GroupStoreDeps, folder: string, lock: DiskLock) {
    this.#d = deps;
    this.#folder = folder;
    this.#lock = lock;
  }

  async load(): Promise<void> {
    for (const name of (await this.#d.disk.list(this.#folder)).sort()) {
      if (name.startsWith(forgottenPrefix)) await this.#removeForgotten(name);
      else if (groupName.test(name)) await this.#loadGroup(name);
    }
  }

  groups(): readonly GroupStore[] {
    return [...this.#groups.values()];
  }

  /** Of several groups of one name (a guest protected anew), the one that was made last. */
  find(nameOrId: string): GroupStore | null {
    return this.#groups.get(nameOrId) ?? this.#byName(nameOrId);
  }

  announce(sourceId: string, announcement: GroupAnnouncement): Promise<GroupStore> {
    return this.#change(async () => {
      const holder = [...this.#groups.values()].find(({ groupId, facts }) => groupId !== announcement.group && facts?.name === announcement.name && facts.sourceId !== sourceId);
      if (holder !== undefined) throw new Fault('GROUP_FOREIGN', `the name ${announcement.name} is taken by a group of another source`, { group: announcement.name });
      const known = this.#groups.get(announcement.group);
      if (known instanceof BrokenGroup) return known.announce();
      if (known !== undefined) {
        await known.announce(sourceId, announcement);
        return known;
      }
      const high = termFault(announcement.term, 0);
      if (high !== null) throw high;
      const made = await this.#make(sourceId, announcement, await this.#reclaim(announcement));
      this.#groups.set(made.groupId, made);
      return made;
    });
  }

  async seedFrom(group: string, disk: number, imagePath: string): Promise<void> {
    const store = this.find(group);
    if (store === null) throw new Fault('GROUP_UNKNOWN', `no group named ${group} is here`, { group });
    if (!(store instanceof FileGroupStore)) return store.seedBegin('');
    await store.seedFromImage(disk, (replica, sizeBytes) => copyImage(this.#d.disk, imagePath, replica, disk, sizeBytes));
  }

  forget(groupId: string): Promise<void> {
    return this.#change(() => this.#forget(groupId));
  }

  async #forget(groupId: string): Promise<void> {
    const group = this.#groups.get(groupId);
    if (group === undefined) throw new Fault('GROUP_UNKNOWN', `no group ${groupId} is here`, { group: groupId });
    await this.#refuseLocked(group);
    this.#groups.delete(groupId);
    await group.close();
    const away = join(this.#folder, forgottenPrefix + groupId);
    try {
      await this.#d.disk.rename(join(this.#folder, groupId), away);
    } catch (error) {
      // It is there as before, and can be forgotten later.
      await this.#loadGroup(groupId);
      throw storeFault(error, `removing ${away}`);
    }
    try {
      await this.#d.disk.syncFolder(this.#folder);
      await removeTree(this.#d.disk, away);
    } catch (error) {
      throw storeFault(error, `removing ${away}`);
    }
  }

  /** Fault POINT_LOCKED; of a group that cannot be opened, also what keeps its locks from being read: STORE_CORRUPT, STORE_NEWER. */
  async #refuseLocked(group: Group): Promise<void> {
    const name = group.facts?.name ?? group.groupId;
    if (!(group instanceof FileGroupStore)) {
      if (!await mayBeLocked(this.#d.disk, new GroupFolder(join(this.#folder, group.groupId)))) return;
      throw new Fault('POINT_LOCKED', `${name} has locked points, and nothing counts their time down while it cannot be opened`, { group: name });
    }
    const lockedForMs = group.lockedForMs();
    if (lockedForMs === 0) return;
    const untilMs = this.#d.clock.nowMs() + lockedForMs;
    throw new Fault('POINT_LOCKED', `${name} has points that are locked, the last of them until ${new Date(untilMs).toISOString()}`, { group: name, untilMs });
  }

  /** What cannot be removed now is in nobody's way: it is tried again at the next start. */
  async #removeForgotten(name: string): Promise<void> {
    const path = join(this.#folder, name);
    try {
      await removeTree(this.#d.disk, path);
    } catch (error) {
      this.#d.log?.warn({ err: storeFault(error, `removing ${path}`) }, 'the rest of a forgotten group could not be removed');
    }
  }

  async close(): Promise<void> {
    await this.#changing;
    for (const group of this.#groups.values()) await group.close();
    this.#groups.clear();
    await this.#lock.release();
  }

  #byName(name: string): Group | null {
    const named = [...this.#groups.values()].filter(({ facts }) => facts?.name === name);
    return named.sort((a, b) => (b.facts?.createdAtMs ?? 0) - (a.facts?.createdAtMs ?? 0))[0] ?? null;
  }

  #change<T>(change: () => Promise<T>): Promise<T> {
    const changed = this.#changing.then(change);
    this.#changing = changed.then(() => undefined, () => undefined);
    return changed;
  }

  async #loadGroup(groupId: string): Promise<void> {
    const folder = new GroupFolder(join(this.#folder, groupId));
    let facts: GroupFacts | null = null;
    try {
      // The process before may have ended between a renaming and its sync: what is read here is believed.
      await this.#d.disk.syncFolder(folder.path);
      facts = await readFacts(this.#d.disk, folder);
      if (facts === null) {
        if (await this.#isUnbegun(folder)) return await removeTree(this.#d.disk, folder.path);
        throw new Fault('STORE_CORRUPT', `${folder.facts} is gone`, { path: folder.facts });
      }
      this.#groups.set(groupId, await FileGroupStore.open(this.#d, folder, facts));
    } catch (error) {
      const fault = storeFault(error, `opening ${folder.path}`);
      this.#d.log?.error({ group: facts?.name ?? groupId, code: fault.code, facts: fault.facts }, fault.message);
      this.#groups.set(groupId, new BrokenGroup(groupId, facts, fault, this.#d.clock.nowMs()));
    }
  }

  /** `group.json` is made durable before anything else of a group is written. */
  async #isUnbegun(folder: GroupFolder): Promise<boolean> {
    for (const path of folder.folders) {
      let names: string[];
      try {
        names = await this.#d.disk.list(path);
      } catch (error) {
        if (errorCode(error) === 'ENOENT') continue;
        throw error;
      }
      if (path === folder.journal ? segmentNumbers(names).length > 0 : names.length > 0) return false;
    }
    return true;
  }

  async #reclaim({ group, term, disks }: GroupAnnouncement): Promise<ReclaimedImages | null> {
    const old = await this.#d.reclaim?.(group, term) ?? null;
    return old === null ? null : reclaimable(old, disks);
  }

  async #make(sourceId: string, announcement: GroupAnnouncement, reclaimed: ReclaimedImages | null): Promise<FileGroupStore> {
    const { disk, clock } = this.#d;
    const folder = new GroupFolder(join(this.#folder, announcement.group));
    // Files that this process does not know as a group are not written over, but for what an attempt of its own left, which holds nothing yet.
    if (!this.#halfMade.has(announcement.group) && await readFacts(disk, folder) !== null) throw new Fault('STORE_SYNC', `${folder.path} holds a group that could not be opened at the start`, { path: folder.path });
    const facts: GroupFacts = {
      version: groupFormatVersion, incompatible: [], groupId: announcement.group, name: announcement.name, sourceId, formerSourceIds: [],
      term: announcement.term, fencedBelow: announcement.term, state: 'protected',
      seed: reclaimed === null ? 'none' : 'partial', reclaimed: reclaimed === null ? null : { point: reclaimed.point }, seedDeltaId: null, isSeedDistrusted: false,
      rpoMs: announcement.rpoMs, createdAtMs: clock.nowMs(),
      disks: announcedDisks(announcement),
      hardware: announcement.hardware,
    };
    try {
      for (const path of [folder.path, ...folder.folders, folder.catalog]) await makeFolder(disk, path);
      if (reclaimed !== null) {
        await reclaimed.place((index) => folder.image(index), announcement.disks);
        await disk.syncFolder(folder.replica);
      }
      await disk.syncFolder(folder.path);
      await disk.syncFolder(this.#folder);
      this.#halfMade.add(announcement.group);
      await writeFacts(disk, folder, facts);
      const made = await FileGroupStore.open(this.#d, folder, facts);
      this.#halfMade.delete(announcement.group);
      return made;
    } catch (error) {
      throw storeFault(error, `making ${folder.path}`);
    }
  }
}

async function makeFolder(disk: Disk, path: string): Promise<void> {
  try {
    await disk.makeFolder(path);
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error;
  }
}

/** A folder and all in it. Whether a name is a file or a folder is found by trying: groups are three levels deep. */
async function removeTree(disk: Disk, path: string): Promise<void> {
  for (const name of await disk.list(path)) {
    const inner = join(path, name);
    try {
      await disk.remove(inner);
    } catch (error) {
      if (errorCode(error) !== 'ENOTEMPTY') throw error;
      await removeTree(disk, inner);
    }
  }
  await disk.remove(path);
}

