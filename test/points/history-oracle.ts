/**
 * Random lives of a group told to a real store, and every restorable point compared with the naive model that keeps a full copy
 * of every disk at every point. A life is drawn from its seed alone. Shared by the tests of the view.
 */
import { isFault } from '../../journal/fault.ts';
import { formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { PointView } from '../../replica-target/points/points.ts';
import { FileGroupStore } from '../../replica-target/store/group-store.ts';
import type { GroupStoreDeps } from '../../replica-target/store/store-options.ts';
import type { GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { makeDice, type Dice } from '../../scripts/sim/dice.ts';
import type { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { appendAll, openOn } from '../store/store-rig.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';

const KiB = 1024;
export type StoreOptions = Partial<GroupStoreDeps['options']>;

/** Draws what a guest does between two points. Disks: the first two from the start, a third that comes later. */
export class RandomGuest {
  readonly dice: Dice;
  readonly model: ModelGuest;
  #writes = 0;

  constructor(seed: number) {
    this.dice = makeDice(seed);
    this.model = new ModelGuest([(16 + this.dice.integer(48)) * KiB, (4 + this.dice.integer(28)) * KiB]);
  }

  /** Writes, zeroes, perhaps a resize or a disk more; then the records of the next point. */
  nextPoint(): ReturnType<ModelGuest['cut']> {
    const { dice, model } = this;
    if (model.disks.length === 2 && model.newest !== null && dice.chance(0.08)) model.disks.push(Buffer.alloc((2 + dice.integer(14)) * KiB));
    const runs = dice.integer(6);
    for (let run = 0; run < runs; run++) {
      const disk = dice.integer(model.disks.length);
      const sectors = model.disks[disk]!.length / 512;
      const length = 1 + dice.integer(Math.min(sectors, dice.chance(0.2) ? 32 : 6));
      const offset = dice.integer(sectors - length + 1) * 512;
      if (dice.chance(0.25)) model.zero(disk, offset, length * 512); else model.write(disk, offset, this.#content(length * 512));
    }
    if (dice.chance(0.15)) model.resize(dice.integer(model.disks.length), (1 + dice.integer(64)) * KiB);
    // A disk that only came, or only changed its size, is a point like any other; one with no record at all too.
    return model.cut({ isCompressed: dice.chance(0.3), ...(dice.chance(0.2) ? { runsPerPart: 1 + dice.integer(3) } : {}) });
  }

  /** Each sector names its write. */
  #content(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const write = ++this.#writes;
    for (let at = 0; at < length; at += 512) {
      bytes.writeUInt32LE(write, at);
      bytes.writeUInt32LE(at, at + 4);
      bytes.fill(write % 255 + 1, at + 8, at + 512);
    }
    return bytes;
  }
}

/** Opens the registry and the group as the guest announces it. */
export async function openGroup(disk: SimulatedDisk, guest: ModelGuest, options: StoreOptions): Promise<{ readonly registry: GroupRegistry; readonly store: FileGroupStore }> {
  const registry = await openOn(disk, options);
  return { registry, store: realStore(await announce(registry, guest)) };
}

/** Runs of a delta may lie where a disk was before it shrank: it is announced large. */
export async function announce(registry: GroupRegistry, guest: ModelGuest): Promise<GroupStore> {
  const announcement = guest.announcement();
  return registry.announce(sourceId, { ...announcement, disks: announcement.disks.map((disk) => ({ ...disk, sizeBytes: 64 * KiB })) });
}

export function realStore(store: GroupStore): FileGroupStore {
  if (!(store instanceof FileGroupStore)) throw new Error(`the group is refused: ${store.report().held?.message ?? '?'}`);
  return store;
}

export async function seed(store: GroupStore, guest: ModelGuest): Promise<void> {
  await store.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
}

export async function sendPoint(store: GroupStore, registry: GroupRegistry, guest: RandomGuest): Promise<void> {
  const records = guest.nextPoint();
  await announce(registry, guest.model);
  await appendAll(store, records);
}

/** Resolves when all that is sealed is applied, and goes on being applied. */
export async function applied(store: GroupStore): Promise<void> {
  const isThere = (): boolean => isSamePoint(store.report().applied, store.holding().newest);
  if (isThere()) return;
  await new Promise<void>((resolve) => {
    const stop = store.onApplied(() => {
      if (!isThere()) return;
      stop();
      resolve();
    });
  });
}

/** What a view reads wrong, or null. Reads in pieces that fall anywhere, and asks for the extents as well. */
export async function viewFault(view: PointView, model: ModelGuest, dice: Dice): Promise<string | null> {
  const expected = model.at(view.point);
  const name = formatPoint(view.point);
  if (view.disks.length !== expected.length) return `${name}: ${view.disks.length} disks, expected ${expected.length}`;
  for (const { disk, sizeBytes } of view.disks) {
    const content = expected[disk];
    if (content === undefined) return `${name}: disk ${disk} should not be there`;
    if (sizeBytes !== content.length) return `${name}: disk ${disk} has ${sizeBytes} bytes, expected ${content.length}`;
    for (let at = 0; at < sizeBytes;) {
      const length = Math.min(sizeBytes - at, dice.pick([1, 511, 512, 1000, 4096, 20_000, 64 * KiB]));
      const bytes = Buffer.alloc(length, 0xa5);
      await view.read(disk, at, bytes);
      const wanted = content.subarray(at, at + length);
      if (!bytes.equals(wanted)) {
        const wrong = bytes.findIndex((byte, index) => byte !== wanted[index]);
        return `${name}: disk ${disk}, byte ${at + wrong} is ${bytes[wrong]}, expected ${wanted[wrong]}`;
      }
      at += length;
    }
    const fault = await extentsFault(view, disk, content, dice);
    if (fault !== null) return `${name}: disk ${disk}: ${fault}`;
  }
  return null;
}

async function extentsFault(view: PointView, disk: number, content: Buffer, dice: Dice): Promise<string | null> {
  const start = dice.integer(content.length / 512) * 512;
  let at = start;
  const countMax = dice.pick([1, 2, 1000]);
  while (at < content.length) {
    const extents = await view.extents(disk, at, content.length - at, countMax);
    if (extents.length === 0 || extents.length > countMax) return `${extents.length} extents from ${at}`;
    for (const { length, isZero } of extents) {
      if (length <= 0 || at + length > content.length) return `an extent of ${length} at ${at}`;
      if (isZero && !content.subarray(at, at + length).every((byte) => byte === 0)) return `[${at}, ${at + length}) is said to be zero`;
      at += length;
    }
  }
  return null;
}

/** Opens every point that is listed, or a share of them, and compares it. Returns how many there were; throws what is wrong. */
export async function checkAllPoints(store: FileGroupStore, guest: RandomGuest, share = 1): Promise<number> {
  const points = await store.restorePoints.list();
  for (const point of points) {
    if (share < 1 && !guest.dice.chance(share)) continue;
    const view = await openListed(store, point);
    if (view === null) continue;
    const fault = await viewFault(view, guest.model, guest.dice);
    await view.release();
    if (fault !== null) throw new Error(fault);
  }
  const { newest } = store.holding();
  if (newest !== null && !points.some((point) => isSamePoint(point, newest))) throw new Error(`${formatPoint(newest)} is the newest and is not listed`);
  return points.length;
}

/** Null when the point was given up between the listing and the opening, and is not listed any more. */
async function openListed(store: FileGroupStore, point: PointId): Promise<PointView | null> {
  try {
    return await store.restorePoints.open(point);
  } catch (error) {
    if (!isFault(error, 'POINT_UNKNOWN') || (await store.restorePoints.list()).some((other) => isSamePoint(other, point))) throw error;
    return null;
  }
}

/** Holds up those who pass while it is closed. */
export function makeGate(): { close(): void; open(): void; openForOthers(): void; pass(): Promise<void>; someoneWaits(): Promise<void> } {
  let isClosed = false;
  let waiting: (() => void)[] = [];
  let watchers: (() => void)[] = [];
  return {
    close: () => { isClosed = true; },
    /** Whoever comes from now on may pass; whoever waits goes on waiting. */
    openForOthers: () => { isClosed = false; },
    open: () => {
      isClosed = false;
      const free = waiting;
      waiting = [];
      for (const go of free) go();
    },
    pass: () => {
      if (!isClosed) return Promise.resolve();
      return new Promise((resolve) => {
        waiting.push(resolve);
        for (const watcher of watchers) watcher();
        watchers = [];
      });
    },
    someoneWaits: () => (waiting.length > 0 ? Promise.resolve() : new Promise((resolve) => { watchers.push(resolve); })),
  };
}
