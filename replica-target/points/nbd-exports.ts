/**
 * The restore points as NBD exports: `GUEST/DISK@POINT`, DISK by name or number, POINT in any form of point-selector.ts. An
 * export is there when somebody asks for it and its view is released when the last connection that uses it has gone; all
 * connections to one point share one view. It listens nowhere (point-server.ts) and keeps nothing over a restart: the same
 * `TERM.POINT` names the same bytes before and after. Invariant: a connection reads one point, whatever its name comes to mean.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { NbdExport, NbdExportSource, NbdLease, NbdListing } from '../../qemu/nbd-handler.ts';
import { storeFault } from '../store/store-fault.ts';
import { isFixed, readSelector, selectPoint, type PointSelector } from './point-selector.ts';
import type { GroupPoints, PointView, RestorePoint, ViewDisk } from './points.ts';

export interface ExportedGroup { readonly groupId: string; readonly name: string; readonly points: GroupPoints }

/** The groups whose points can be had. */
export interface ExportedGroups {
  all(): readonly ExportedGroup[];
  /** By name or id. */
  find(nameOrId: string): ExportedGroup | null;
}

/** NBD_OPT_LIST is for orientation: what is listed is the newest point of each disk, and points that somebody marked or holds. */
const listedMax = 64;
const listedPointsMaxEach = 8;
/** A disk's name and a label may both contain an @; no sound name has more. */
const splitsMax = 8;

interface SharedView {
  readonly opening: Promise<PointView>;
  /** Leases. */
  userCount: number;
  /** Reads under way: a client may go in the middle of one. */
  readCount: number;
}

/** A view as one lease has it. */
interface HeldView {
  readonly view: PointView;
  /** The read is awaited before the view is released. */
  during<T>(reading: Promise<T>): Promise<T>;
  release(): void;
}

export class NbdExports implements NbdExportSource {
  readonly #groups: ExportedGroups;
  readonly #clock: Clock;
  readonly #onFault: (fault: Fault) => void;
  readonly #views = new Map<string, SharedView>();

  /** `onFault`: of what fails when nobody waits for it any more. */
  constructor(groups: ExportedGroups, clock: Clock, onFault: (fault: Fault) => void) {
    this.#groups = groups;
    this.#clock = clock;
    this.#onFault = onFault;
  }

  /** Views that are open, or being opened. */
  get viewCount(): number { return this.#views.size; }

  /** Faults: GROUP_UNKNOWN, POINT_UNKNOWN, DISK_UNKNOWN, and those of opening a view. */
  async open(exportName: string): Promise<NbdLease> {
    const slash = exportName.indexOf('/');
    const groupName = slash < 0 ? exportName : exportName.slice(0, slash);
    const group = this.#groups.find(groupName);
    if (group === null) throw new Fault('GROUP_UNKNOWN', `no guest named ${JSON.stringify(groupName)} is here; exports are named GUEST/DISK@POINT`, { group: groupName });
    const splits = splitsOf(exportName.slice(slash + 1));
    if (slash < 0 || splits.length === 0) throw new Fault('POINT_UNKNOWN', `${JSON.stringify(exportName)} names no point: exports are named GUEST/DISK@POINT, such as ${group.name}/0@newest`, { group: group.name });
    let refusal: unknown = null;
    for (const { disk, selector } of splits) {
      try {
        return await this.#lease(group, disk, selector);
      } catch (error) {
        if (!isFault(error, 'POINT_UNKNOWN') && !isFault(error, 'DISK_UNKNOWN')) throw error;
        // The last one has the shortest name of a disk: a name without any @, mostly.
        refusal = error;
      }
    }
    throw refusal;
  }

  async list(): Promise<readonly NbdListing[]> {
    const listings: NbdListing[] = [];
    const all = await Promise.all(this.#groups.all().map(async (group) => ({ group, points: await this.#pointsOf(group) })));
    const sound = all.filter(({ points }) => points.length > 0);
    for (const { group, points } of sound) listings.push(...await this.#listingsOf(group, points.at(-1)!, 'newest'));
    for (const { group, points } of sound) {
      const special = points.filter(({ isHeld, kind, label }) => isHeld || kind === 'app' || kind === 'mark' || label !== undefined).slice(-listedPointsMaxEach);
      for (const point of special.reverse()) {
        if (listings.length < listedMax) listings.push(...await this.#listingsOf(group, point, formatPoint(point)));
      }
    }
    return listings.slice(0, listedMax);
  }

  async #lease(group: ExportedGroup, diskText: string, selectorText: string): Promise<NbdLease> {
    const nowMs = this.#clock.nowMs();
    const selector = readSelector(selectorText, nowMs);
    const point = await findPoint(group.points, selector, group.name);
    const held = await this.#acquire(group, point);
    try {
      const disk = findDisk(held.view.disks, diskText, `${group.name} at ${formatPoint(point)}`);
      return { export: exportOf(group, point, held, disk, isFixed(selector)), release: () => held.release() };
    } catch (error) {
      held.release();
      throw error;
    }
  }

  async #acquire(group: ExportedGroup, point: PointId): Promise<HeldView> {
    const key = `${group.groupId}@${formatPoint(point)}`;
    const shared = this.#views.get(key) ?? { opening: group.points.open(point), userCount: 0, readCount: 0 };
    this.#views.set(key, shared);
    shared.userCount += 1;
    const leave = (): void => {
      shared.userCount -= 1;
      if (shared.userCount === 0) this.#views.delete(key);
    };
    let view: PointView;
    try {
      view = await shared.opening;
    } catch (error) {
      leave();
      throw storeFault(error, `opening ${group.name} at ${formatPoint(point)}`);
    }
    const end = (): void => {
      if (shared.userCount > 0 || shared.readCount > 0) return;
      view.release().catch((error: unknown) => { this.#onFault(storeFault(error, `closing ${group.name} at ${formatPoint(point)}`)); });
    };
    let isReleased = false;
    return {
      view,
      async during(reading) {
        shared.readCount += 1;
        try {
          return await reading;
        } finally {
          shared.readCount -= 1;
          end();
        }
      },
      release() {
        if (isReleased) return;
        isReleased = true;
        leave();
        end();
      },
    };
  }

  /** None of a group that cannot be read. */
  async #pointsOf(group: ExportedGroup): Promise<readonly RestorePoint[]> {
    try {
      return await group.points.list();
    } catch (error) {
      this.#onFault(storeFault(error, `listing the points of ${group.name}`));
      return [];
    }
  }

  /** Nothing for a point that went away meanwhile, or whose group cannot be read: that is said to whoever asks for it. */
  async #listingsOf(group: ExportedGroup, point: RestorePoint, selector: string): Promise<readonly NbdListing[]> {
    try {
      const { view: { disks }, release } = await this.#acquire(group, point);
      release();
      return disks.map((disk) => ({ name: `${group.name}/${exportedDiskName(disks, disk)}@${selector}`, description: describe(group, point, disk) }));
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#onFault(error);
      return [];
    }
  }
}

/** The name of the export that shows this disk at this point, now and after a restart. */
export function pointExportName(group: string, disks: readonly ViewDisk[], disk: ViewDisk, point: PointId): string {
  return `${group}/${exportedDiskName(disks, disk)}@${formatPoint(point)}`;
}

/** By its name, unless that is another one's too, or could be taken for a number. */
function exportedDiskName(disks: readonly ViewDisk[], disk: ViewDisk): string {
  const isPlain = disk.name !== '' && !/^\d+$/.test(disk.name) && disks.filter(({ name }) => name === disk.name).length === 1;
  return isPlain ? disk.name : String(disk.disk);
}

/** Faults: DISK_UNKNOWN. */
export function findDisk(disks: readonly ViewDisk[], text: string, where: string): ViewDisk {
  const named = disks.filter(({ name }) => name === text);
  const found = named.length === 1 ? named[0] : disks.find(({ disk }) => String(disk) === text);
  if (found !== undefined) return found;
  const known = disks.map(({ disk, name }) => `${disk} (${name})`).join(', ');
  throw new Fault('DISK_UNKNOWN', `${where} has no disk ${JSON.stringify(text)}; it has ${known}`, { disk: text, disks: disks.map(({ name }) => name) });
}

/** A point that is named outright is looked up alone: of ten thousand a list would take longer than the reading. Fault POINT_UNKNOWN. */
export async function findPoint(points: GroupPoints, selector: PointSelector, group: string): Promise<RestorePoint> {
  try {
    const named = selector.by === 'number' && selector.term !== null ? await points.find({ term: selector.term, point: selector.point }) : null;
    return named ?? selectPoint(await points.list(), selector, group);
  } catch (error) {
    throw storeFault(error, `looking up points of ${group}`);
  }
}

/** All ways to part `DISK@POINT`, the longest disk first. */
function splitsOf(text: string): { readonly disk: string; readonly selector: string }[] {
  const splits: { readonly disk: string; readonly selector: string }[] = [];
  for (let at = text.lastIndexOf('@'); at > 0 && splits.length < splitsMax; at = text.lastIndexOf('@', at - 1)) splits.push({ disk: text.slice(0, at), selector: text.slice(at + 1) });
  return splits;
}

function exportOf(group: ExportedGroup, point: RestorePoint, { view, during }: HeldView, { disk, name, sizeBytes }: ViewDisk, isSameForAll: boolean): NbdExport {
  return {
    sizeBytes, minimumBytes: 1, isSameForAll,
    canonicalName: pointExportName(group.name, view.disks, { disk, name, sizeBytes }, point),
    description: describe(group, point, { disk, name, sizeBytes }),
    handler: {
      read: (into, offset) => during(view.read(disk, offset, into)),
      extents: async (offset, length, countMax) => (await during(view.extents(disk, offset, length, countMax))).map((extent) => ({ lengthBytes: extent.length, isHole: extent.isZero })),
    },
  };
}

function describe(group: ExportedGroup, { term, point, kind, label, cutAtMs }: RestorePoint, { name }: ViewDisk): string {
  return `${group.name}, disk ${name}, point ${formatPoint({ term, point })} (${kind}${label === undefined ? '' : `, ${JSON.stringify(label)}`}), cut ${new Date(cutAtMs).toISOString()}`;
}
