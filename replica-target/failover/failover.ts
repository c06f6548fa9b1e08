/**
 * Unplanned failover of one group: what is sealed is applied, the term is raised durably, and the guest boots on overlays with
 * the hardware that was recorded for it. The newest point lies under the overlays as the plain replica; an older one is a view
 * that this target serves, held until the guest's data has come home. What is allowed when is failover-plan.ts. Each step is
 * noted in a file of its own first, so that a target that was killed in between finds the guest, the hold and the overlays.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJsonFolder, replaceJson } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint, pointKinds, type PointId } from '../../journal/point.ts';
import { isGuestRunning, stopGuest, type BootDisk } from '../../qemu/boot.ts';
import type { FailoverRequest, FailoverResult, TargetOptions } from '../operations.ts';
import { pointExportName } from '../points/nbd-exports.ts';
import { readSelector, selectPoint } from '../points/point-selector.ts';
import type { GroupPoints, RestorePoint } from '../points/points.ts';
import type { FailedOverGuest } from '../report.ts';
import type { GroupStore, StoredPoint } from '../store/store.ts';
import { refuseOtherPoint, rule, type FailoverStep } from './failover-plan.ts';
import type { GroupTurns } from './group-turns.ts';
import { chooseAccel, guestPlace, launchGuest, overlayPath, recordedHardware, runningPid } from './guest-launch.ts';
import { releaseHold } from './held-point.ts';
import { Homecoming } from './homecoming.ts';
import { isBacked, isThere, makeOverlay } from './overlays.ts';
import type { TestFailovers } from './test-failover.ts';

const noted = z.object({
  groupId: z.string(),
  group: z.string(),
  term: z.number().int(),
  point: z.object({ term: z.number().int(), point: z.number().int() }),
  /** Overlays, firmware variables, sockets and logs of this failover. */
  folder: z.string(),
  qmpPath: z.string(),
  logPath: z.string(),
  pid: z.number().int().nullable(),
  startedAtMs: z.number(),
  /** Of the point, which may be given up once nothing depends on it. Null: nothing was booted yet. */
  facts: z.object({ kind: z.enum(pointKinds), cutAtMs: z.number(), arrivedAtMs: z.number(), changedBytes: z.number(), label: z.string().optional() }).nullable().default(null),
  /** Of a guest that was booted from a view. Null: from the replica. */
  view: z.object({
    /** Unique: by it a hold is found that was taken and not noted any more. */
    holdReason: z.string(),
    holdId: z.string().nullable(),
    isHome: z.boolean(),
    disks: z.array(z.object({ disk: z.number().int(), name: z.string(), sizeBytes: z.number().int(), exportName: z.string() })),
  }).nullable().default(null),
});
type Noted = z.infer<typeof noted>;
type NotedView = NonNullable<Noted['view']>;

export interface FailoversOptions {
  readonly failover: TargetOptions['failover'];
  /** Where the notes are kept, absolute. */
  readonly folder: string;
  /** Unix socket on which this target serves views. */
  readonly viewSocketPath: string;
  /** Null: the group is not here any more. */
  readonly pointsOf: (groupId: string) => GroupPoints | null;
  readonly turns: GroupTurns;
  readonly tests: TestFailovers;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Failovers {
  readonly #o: FailoversOptions;
  readonly #noted = new Map<string, Noted>();
  readonly #homecomings = new Map<string, Homecoming>();

  constructor(options: FailoversOptions) {
    this.#o = options;
  }

  /** Takes up what an earlier process left. `stores` are open, views are served. */
  async open(stores: readonly GroupStore[]): Promise<void> {
    await mkdir(this.#o.folder, { recursive: true, mode: 0o700 });
    for (const note of await readJsonFolder(this.#o.folder, noted)) {
      this.#noted.set(note.groupId, note);
      const store = stores.find(({ groupId }) => groupId === note.groupId);
      if (store === undefined) continue;
      try {
        await this.#takeUp(store, note);
      } catch (error) {
        // One group's trouble must not keep the target from serving the others.
        this.#o.log.error({ group: note.group, err: error }, `the failover of ${note.group} could not be taken up; it is tried again when it is asked for`);
      }
    }
  }

  report(): FailedOverGuest[] {
    return [...this.#noted.values()].map(({ groupId, group, term, point, qmpPath, logPath, pid, startedAtMs, view }) => ({
      group, term, point, qmpPath, logPath, pid, isRunning: pid !== null && isGuestRunning(pid, qmpPath), startedAtMs,
      home: view === null ? null : view.isHome ? homeOf(view) : this.#homecomings.get(groupId)?.report() ?? { ...homeOf(view), state: 'waiting', doneBytes: 0 },
    }));
  }

  failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    return this.#o.turns.take(store.groupId, () => this.#failOver(store, request));
  }

  /** Ends the guest that runs here. `isRolledBack`: its overlays go, and the group takes deltas again. */
  stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    return this.#o.turns.take(store.groupId, () => this.#stop(store, isRolledBack));
  }

  /** Guests go on; what is asked of them stops. */
  async close(): Promise<void> {
    await Promise.all([...this.#homecomings.values()].map((homecoming) => homecoming.stop()));
  }

  async #failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    const askedMs = this.#o.clock.monotonicMs();
    const askedAtMs = this.#o.clock.nowMs();
    const before = store.report();
    const known = await this.#known(store.groupId);
    const { endsTest } = this.#rule(store, known, 'fail-over');
    if (before.newest === null) throw new Fault('FAILOVER_NO_POINT', `${before.name} has no sealed point yet`, { group: before.name });
    const chosen = request.at === undefined ? null : await this.#choose(store, request.at, askedAtMs);
    const hardware = recordedHardware(store);
    const accel = await chooseAccel(request.accel ?? this.#o.failover.accel);
    if (known !== undefined && before.state === 'failed-over') {
      const refusal = refuseOtherPoint(before.name, known.point, chosen);
      if (refusal !== null) throw new Fault('FAILOVER_STATE', refusal, { group: before.name, ...known.point });
    }
    if (endsTest) await this.#o.tests.endForFailover(store);

    const begun = known !== undefined && before.state === 'failed-over' ? known : await this.#begin(store, chosen, askedAtMs);
    const point = await this.#point(store, begun);
    const { kind, cutAtMs, arrivedAtMs, changedBytes, label } = point;
    const note: Noted = { ...begun, facts: { kind, cutAtMs, arrivedAtMs, changedBytes, ...(label === undefined ? {} : { label }) } };
    const place = guestPlace(note.folder);
    await mkdir(note.folder, { recursive: true, mode: 0o700 });
    const disks = note.view === null ? await this.#overlayReplica(store, note.folder) : await this.#overlayView(note.view, note.folder);
    const pid = await launchGuest({ group: before.name, place, hardware, disks, network: request.network ?? this.#o.failover.network, accel, log: this.#o.log });
    await this.#note({ ...note, pid });
    this.#bringHome(store, { ...note, pid });
    return {
      group: before.name,
      term: note.term,
      point,
      lostMs: Math.max(0, askedAtMs - point.cutAtMs),
      rtoMs: this.#o.clock.monotonicMs() - askedMs,
      qmpPath: place.qmpPath, pid, logPath: place.logPath, accel,
      overlayPaths: disks.map(({ path }) => path),
      isComingHome: note.view !== null && !note.view.isHome,
    };
  }

  /** From protected to failed over: noted first, then held, then the term. Nothing has booted when it resolves. */
  async #begin(store: GroupStore, chosen: RestorePoint | null, startedAtMs: number): Promise<Noted> {
    const { name, state, newest, applied, term: before } = store.report();
    const { groupId } = store;
    // Its term was raised, and what died then left no note: nothing can have booted.
    const isRaised = state === 'failed-over';
    const term = isRaised ? before : before + 1;
    const isNewest = chosen === null || (chosen.term === newest?.term && chosen.point === newest.point);
    const point: PointId = isNewest ? applied ?? { term: 0, point: 0 } : { term: chosen.term, point: chosen.point };
    const folder = join(this.#o.failover.overlayFolder, `${groupId.slice(0, 12)}-${term}`);
    const { qmpPath, logPath } = guestPlace(folder);
    // First of all: whatever fails or dies from here on, the failover is known, can be asked for again, or rolled back.
    let note: Noted = { groupId, group: name, term, point, folder, qmpPath, logPath, pid: null, startedAtMs, facts: null, view: null };
    try {
      await this.#note(note);
      if (!isNewest) note = await this.#hold(store, note, chosen);
      const raised = isRaised ? { term, point: await store.drain() ?? point } : await store.failOver();
      note = { ...note, term: raised.term };
      // What arrived while it was being asked for is newer than what was asked for, if that was named.
      if (isNewest && chosen !== null && (raised.point.term !== chosen.term || raised.point.point !== chosen.point)) note = await this.#hold(store, note, chosen);
      else if (isNewest) note = { ...note, point: { term: raised.point.term, point: raised.point.point } };
      await this.#note(note);
    } catch (error) {
      if (store.report().state !== 'failed-over') await this.#forget(note);
      throw error;
    }
    this.#o.log.warn({ group: name, term: note.term, point: note.point }, `failing over ${name} to point ${formatPoint(note.point)}`);
    return note;
  }

  async #hold(store: GroupStore, note: Noted, chosen: RestorePoint): Promise<Noted> {
    const points = store.restorePoints;
    const view = await points.open(chosen);
    const { disks } = view;
    await view.release();
    const holdReason = `failover of ${note.group} (${randomBytes(4).toString('hex')})`;
    const noting: NotedView = {
      holdReason, holdId: null, isHome: false,
      disks: disks.map((disk) => ({ ...disk, exportName: pointExportName(store.groupId, disks, disk, chosen) })),
    };
    await this.#note({ ...note, view: noting });
    const { holdId } = await points.hold(chosen, holdReason, null);
    const held = { ...note, point: { term: chosen.term, point: chosen.point }, view: { ...noting, holdId } };
    await this.#note(held);
    return held;
  }

  async #stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    const known = await this.#known(store.groupId);
    // A roll-back that was cut short left a note of a group that is protected again.
    if (known === undefined || store.report().state === 'failed-over') this.#rule(store, known, isRolledBack ? 'roll-back' : 'stop');
    await this.#homecomings.get(store.groupId)?.stop();
    // What had come home until then was noted meanwhile.
    const note = this.#noted.get(store.groupId);
    if (note === undefined) {
      // The term was raised, and what died then had not even noted it.
      if (isRolledBack) await store.rollBack();
      return;
    }
    if (note.pid !== null) await stopGuest(note.pid, note.qmpPath);
    await this.#note({ ...note, pid: null });
    if (!isRolledBack) return;
    if (store.report().state === 'failed-over') await store.rollBack();
    await this.#forget(note);
  }

  /** Files, hold and note, in this order: as long as there is a trace, the note tells where. */
  async #forget(note: Noted): Promise<void> {
    await this.#homecomings.get(note.groupId)?.stop();
    this.#homecomings.delete(note.groupId);
    await rm(note.folder, { recursive: true, force: true });
    if (note.view !== null) await releaseHold(this.#o.pointsOf(note.groupId), note.view);
    await rm(this.#notePath(note.groupId), { force: true });
    this.#noted.delete(note.groupId);
  }

  async #takeUp(store: GroupStore, note: Noted): Promise<void> {
    const pid = await runningPid(note.pid, note.qmpPath);
    if (store.report().state === 'protected') {
      // Killed before the term was raised, or in the middle of a roll-back: nothing of it counts.
      if (pid !== null) await stopGuest(pid, note.qmpPath);
      await this.#forget(note);
      return;
    }
    if (pid !== note.pid) await this.#note({ ...note, pid });
    this.#bringHome(store, { ...note, pid });
  }

  #bringHome(store: GroupStore, { groupId, group, folder, qmpPath, pid, view }: Noted): void {
    if (view === null || view.isHome || pid === null) return;
    this.#homecomings.set(groupId, new Homecoming({
      group, folder, log: this.#o.log,
      sizes: new Map(view.disks.map(({ disk, sizeBytes }) => [disk, sizeBytes])),
      isRunning: () => isGuestRunning(pid, qmpPath),
      onHome: async () => { await this.#arrived(store.groupId); },
    }));
  }

  async #arrived(groupId: string): Promise<void> {
    const note = this.#noted.get(groupId);
    if (note?.view == null) return;
    await this.#note({ ...note, view: { ...note.view, isHome: true } });
    await releaseHold(this.#o.pointsOf(groupId), note.view);
    this.#o.log.info({ group: note.group, point: note.point }, `all data of ${note.group} has come home: it depends on its own images alone`);
  }

  #rule(store: GroupStore, note: Noted | undefined, step: FailoverStep): { readonly endsTest: boolean } {
    const { name, state } = store.report();
    const ruling = rule({ name, state, isTesting: this.#o.tests.isTesting(store.groupId), failedOverPid: note?.pid ?? null }, step);
    if (!ruling.may) throw new Fault('FAILOVER_STATE', ruling.why, { group: name, state, ...(note?.pid == null ? {} : { pid: note.pid }) });
    return ruling;
  }

  /** Null: the newest there is when the term is raised. */
  async #choose(store: GroupStore, text: string, nowMs: number): Promise<RestorePoint | null> {
    const selector = readSelector(text, nowMs);
    return selector.by === 'newest' ? null : selectPoint(await store.restorePoints.list(), selector, store.report().name);
  }

  /** Whether its guest runs is looked at anew: a pid that is noted is one that runs. */
  async #known(groupId: string): Promise<Noted | undefined> {
    const note = this.#noted.get(groupId);
    if (note === undefined) return undefined;
    const pid = await runningPid(note.pid, note.qmpPath);
    if (pid === note.pid) return note;
    const found = { ...note, pid };
    await this.#note(found);
    return found;
  }

  async #overlayReplica(store: GroupStore, folder: string): Promise<BootDisk[]> {
    const overlays: BootDisk[] = [];
    for (const { disk, name, replicaPath, isAtApplied } of store.report().disks) {
      if (!isAtApplied) continue; // added after the point that boots
      const path = overlayPath(folder, disk);
      await makeOverlay(path, { kind: 'replica', path: replicaPath });
      overlays.push({ disk, name, path, format: 'qcow2' });
    }
    return overlays;
  }

  /** Of a guest that ran before, some images may have come home already. */
  async #overlayView(view: NotedView, folder: string): Promise<BootDisk[]> {
    const overlays: BootDisk[] = [];
    for (const { disk, name, sizeBytes, exportName } of view.disks) {
      const path = overlayPath(folder, disk);
      const backing = { socketPath: this.#o.viewSocketPath, exportName };
      if (!(await isThere(path))) await makeOverlay(path, { kind: 'view', backing, sizeBytes });
      overlays.push({ disk, name, path, format: 'qcow2', ...(await isBacked(path) ? { backing } : {}) });
    }
    return overlays;
  }

  async #point(store: GroupStore, { point: id, facts }: Noted): Promise<StoredPoint> {
    if (facts !== null) return { ...id, kind: facts.kind, cutAtMs: facts.cutAtMs, arrivedAtMs: facts.arrivedAtMs, changedBytes: facts.changedBytes, isApplied: true, ...(facts.label === undefined ? {} : { label: facts.label }) };
    const found = (await store.points()).find(({ term, point }) => term === id.term && point === id.point);
    if (found === undefined) throw new Fault('STORE_CORRUPT', `point ${formatPoint(id)} is to be booted and is not in the catalog`, { ...id });
    return found;
  }

  #notePath(groupId: string): string {
    return join(this.#o.folder, `${groupId}.json`);
  }

  async #note(note: Noted): Promise<void> {
    await replaceJson(this.#notePath(note.groupId), note);
    this.#noted.set(note.groupId, note);
  }
}

function homeOf({ disks }: NotedView): NonNullable<FailedOverGuest['home']> {
  const totalBytes = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return { state: 'home', doneBytes: totalBytes, totalBytes };
}
