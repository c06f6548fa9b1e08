/** A group without its files, for what failovers do with QEMU, notes and holds: its points are listed and held, and served by nbdkit. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { nodeClock } from '../../host/node/clock.ts';
import { isSamePoint, type PointId } from '../../journal/point.ts';
import { GroupTurns } from '../../replica-target/failover/group-turns.ts';
import type { TestFailoversOptions } from '../../replica-target/failover/test-failover.ts';
import type { GroupPoints, Hold, PointView, RestorePoint, ViewDisk } from '../../replica-target/points/points.ts';
import type { GroupState, GroupStore } from '../../replica-target/store/store.ts';
import { waitFor } from '../support/wait.ts';

export const groupId = 'ab'.repeat(16);
export const point: RestorePoint = {
  term: 1, point: 2, kind: 'crash', cutAtMs: 1_900_000_000_000, arrivedAtMs: 1_900_000_000_001, changedBytes: 0, isApplied: true, isHeld: false, keptBy: 'all',
};

class HeldPoints implements GroupPoints {
  readonly #disks: readonly ViewDisk[];
  readonly #holds = new Map<string, Hold>();

  constructor(disks: readonly ViewDisk[]) {
    this.#disks = disks;
  }

  async list(): Promise<readonly RestorePoint[]> { return [point]; }
  async find(id: PointId): Promise<RestorePoint | null> { return isSamePoint(id, point) ? point : null; }
  changedSince(): Promise<never> { return Promise.reject(new Error('not asked for')); }
  async open(id: PointId): Promise<PointView> {
    if (!isSamePoint(id, point)) throw new Error('another point');
    return { point, disks: this.#disks, read: async () => { throw new Error('read through nbdkit'); }, extents: async () => [], release: async () => undefined };
  }

  lock(): Promise<Hold> { throw new Error('not here'); }

  async hold(id: PointId, reason: string, untilMs: number | null): Promise<Hold> {
    const hold = { holdId: `hold-${this.#holds.size}`, point: id, reason, takenAtMs: 0, untilMs };
    this.#holds.set(hold.holdId, hold);
    return hold;
  }

  async release(holdId: string): Promise<void> { this.#holds.delete(holdId); }
  holds(): readonly Hold[] { return [...this.#holds.values()]; }
}

export interface FailoverRig {
  readonly folder: string;
  readonly store: GroupStore;
  readonly points: GroupPoints;
  readonly options: TestFailoversOptions;
}

/** What failovers ask of a store, and no more: anything else fails by name. */
export function storeOf(id: string, name: string, points: GroupPoints, hardware: unknown, state: GroupState = 'protected'): GroupStore {
  return { groupId: id, restorePoints: points, report: () => ({ groupId: id, name, state, term: 1 }), hardware: () => hardware } as unknown as GroupStore;
}

export async function failoverRig(t: { teardown(end: () => Promise<void>): unknown }, disks: readonly ViewDisk[], hardware: unknown = {}, state: GroupState = 'protected'): Promise<FailoverRig> {
  const folder = await mkdtemp(join(tmpdir(), 'af-fo-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const overlayFolder = join(folder, 'overlays');
  await mkdir(overlayFolder);
  const points = new HeldPoints(disks);
  const store = storeOf(groupId, 'web', points, hardware, state);
  return {
    folder, store, points,
    options: {
      failover: { accel: 'tcg', network: 'none', overlayFolder }, keepFreeBytes: 1 << 20, folder: join(folder, 'tests'), viewSocketPath: join(folder, 'points.sock'),
      pointsOf: () => points, turns: new GroupTurns(), clock: nodeClock, log: pino({ level: 'silent' }),
    },
  };
}

/** Serves a raw image under every name, read-only, to as many as come, until the test ends. `failing`: while that file is there, reads fail. */
export async function serveRaw(t: { teardown(end: () => void): unknown }, socketPath: string, rawPath: string, failing: string): Promise<ChildProcess> {
  // The filter looks for its file when it is loaded.
  await writeFile(failing, '');
  const child = spawn('nbdkit', ['-f', '-r', '-U', socketPath, '--filter=error', 'file', rawPath, 'error=EIO', 'error-pread-rate=100%', `error-file=${failing}`], { stdio: 'ignore' });
  t.teardown(() => { child.kill('SIGKILL'); });
  await waitFor(() => stat(socketPath).then(() => true, () => false), { limitMs: 10_000, what: 'nbdkit to listen' });
  await rm(failing);
  return child;
}

/** A QEMU that does nothing, on a monitor of a guest that is to be found. */
export async function startEmptyQemu(t: { teardown(end: () => void): unknown }, qmpPath: string): Promise<number> {
  const child = spawn('qemu-system-x86_64', ['-machine', 'none', '-nodefaults', '-display', 'none', '-accel', 'tcg', '-qmp', `unix:${qmpPath},server=on,wait=off`], { stdio: 'ignore' });
  t.teardown(() => { child.kill('SIGKILL'); });
  await waitFor(() => stat(qmpPath).then(() => true, () => false), { limitMs: 10_000, what: 'QEMU to listen' });
  return child.pid!;
}
