/**
 * Test failovers: boots a point of a group on overlays of its own, with no way out of the guest, while the group goes on being
 * protected. What is allowed when, and when a test is over, is failover-plan.ts. The point is read through a view that is held,
 * the newest as well: the replica goes on changing underneath.
 * Invariants: a test is noted before anything of it exists, and its note goes last, so that whatever is left is found and
 * removed, also by the next process; its images cannot grow beyond its budget; it neither raises a term nor stops a delta.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJsonFolder, replaceJson } from '../../host/node/json-file.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { segmentBytes } from '../../journal/limits.ts';
import { formatPoint } from '../../journal/point.ts';
import type { BootDisk } from '../../qemu/boot.ts';
import { continueGuest, runReady, runStateOf } from '../../qemu/guest-blocks.ts';
import type { TargetOptions, TestRequest, TestResult } from '../operations.ts';
import { pointExportName } from '../points/nbd-exports.ts';
import { choosePoint } from '../points/point-selector.ts';
import type { GroupPoints, RestorePoint, ViewDisk } from '../points/points.ts';
import type { EndedTest, TestGuest } from '../report.ts';
import type { GroupStore } from '../store/store.ts';
import { rule, testBudget, testBudgetBytesMin, whyTestEnds, type FailoverStep, type TestEnd } from './failover-plan.ts';
import { areSome, eachMonitor, firstOf, launchGuests, lookUpGuests, notedGuest, placeGuests, recordedGuests, reportGuests, startedGuests, stopGuests, type NotedGuest } from './group-guests.ts';
import { GroupStart, type StartedState } from './group-start.ts';
import type { GroupTurns } from './group-turns.ts';
import { chooseAccel, overlayPath } from './guest-launch.ts';
import { releaseHold } from './held-point.ts';
import { runHook, runHookAfter, type HookFacts } from './hooks.ts';
import { forgetManaged } from './managed-launch.ts';
import { networkName, planNetwork } from './network-plan.ts';
import { allocatedBytes, makeOverlay } from './overlays.ts';
import { awaitReady } from './readiness.ts';

const noted = z.object({
  groupId: z.string(),
  group: z.string(),
  point: z.object({ term: z.number().int(), point: z.number().int() }),
  cutAtMs: z.number(),
  folder: z.string(),
  /** None of them has a pid until all of them were started: such a test is not taken up again. */
  guests: z.array(notedGuest),
  /** Unique: by it a hold is found that was taken and not noted any more. */
  holdReason: z.string(),
  holdId: z.string().nullable(),
  network: networkName,
  /** By MAC. */
  networks: z.record(z.string(), networkName).default({}),
  startedAtMs: z.number(),
  endsAtMs: z.number(),
  budgetBytes: z.number().int(),
  disks: z.array(z.number().int()),
});
type Noted = z.infer<typeof noted>;

/** How long a test runs unless told otherwise, and at most, ms. */
export const testLimitMsDefault = 3_600_000;
/** Pace of looking at tests, ms. */
const paceMs = 1000;

export interface TestFailoversOptions {
  readonly failover: TargetOptions['failover'];
  /** What replication must find free. */
  readonly keepFreeBytes: number;
  /** Where the notes are kept, absolute. */
  readonly folder: string;
  /** Unix socket on which this target serves views. */
  readonly viewSocketPath: string;
  /** Null: the group is not here any more. */
  readonly pointsOf: (groupId: string) => GroupPoints | null;
  readonly turns: GroupTurns;
  readonly clock: Clock;
  readonly log: Logger;
}

export class TestFailovers {
  readonly #o: TestFailoversOptions;
  readonly #noted = new Map<string, Noted>();
  readonly #starts = new Map<string, GroupStart>();
  readonly #usedBytes = new Map<string, number>();
  readonly #ended = new Map<string, EndedTest>();
  readonly #closing = new AbortController();
  #watching: Promise<void> = Promise.resolve();
  /** Tests whose trouble has been told: it is met again every second. */
  readonly #told = new Set<string>();

  constructor(options: TestFailoversOptions) {
    this.#o = options;
  }

  /** Takes up what an earlier process left: guests that run go on to their end, anything else is removed. `stores` are open, views are served. */
  async open(stores: readonly GroupStore[]): Promise<void> {
    await mkdir(this.#o.folder, { recursive: true, mode: 0o700 });
    for (const note of await readJsonFolder(this.#o.folder, noted)) {
      this.#noted.set(note.groupId, note);
      const store = stores.find(({ groupId }) => groupId === note.groupId);
      const guests = await lookUpGuests(note.guests);
      if (!areSome(note.guests) || store?.report().state === 'failed-over') {
        await this.#endQuietly(note, !areSome(note.guests) ? 'interrupted' : 'failover');
      } else if (!areSome(guests)) await this.#endQuietly(note, 'guest-ended');
    }
    this.#watching = this.#watch();
  }

  report(): TestGuest[] {
    return [...this.#noted.values()].map(({ groupId, group, point, cutAtMs, guests, startedAtMs, endsAtMs, budgetBytes, network }) => ({
      group, point, cutAtMs, guests: reportGuests(guests), ...firstOf(guests), isRunning: reportGuests(guests).some(({ isRunning }) => isRunning), startedAtMs, endsAtMs, budgetBytes, network,
      usedBytes: this.#usedBytes.get(groupId) ?? 0,
    }));
  }

  /** The last one of each group that ended since this process started. */
  ended(): EndedTest[] {
    return [...this.#ended.values()];
  }

  /** Its guests, as far as it runs. */
  guestsOf(groupId: string): readonly NotedGuest[] {
    return this.#noted.get(groupId)?.guests ?? [];
  }

  /** All its guests were started, and ready or late. */
  async whenStarted(groupId: string): Promise<readonly StartedState[]> {
    const start = this.#starts.get(groupId);
    await start?.ended;
    return start?.states() ?? [];
  }

  isTesting(groupId: string): boolean {
    return this.#noted.has(groupId);
  }

  start(store: GroupStore, request: TestRequest): Promise<TestResult> {
    return this.#o.turns.take(store.groupId, () => this.#start(store, request));
  }

  stop(store: GroupStore): Promise<void> {
    return this.#o.turns.take(store.groupId, async () => {
      this.#rule(store, 'end-test');
      await this.#end(this.#noted.get(store.groupId), 'asked');
    });
  }

  /** Within the group's turn. What cannot be removed now does not hold up the failover: it is tried again. */
  async endForFailover(store: GroupStore): Promise<void> {
    const note = this.#noted.get(store.groupId);
    if (note !== undefined) await this.#endQuietly(note, 'failover');
  }

  /** Guests go on, and are taken up again by the next process. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#watching;
    await Promise.all([...this.#starts.values()].map((start) => start.stop()));
  }

  async #start(store: GroupStore, request: TestRequest): Promise<TestResult> {
    const { monotonicMs, nowMs } = { monotonicMs: () => this.#o.clock.monotonicMs(), nowMs: () => this.#o.clock.nowMs() };
    const askedMs = monotonicMs();
    const startedAtMs = nowMs();
    this.#rule(store, 'test');
    const { groupId } = store;
    const { name } = store.report();
    const points = store.restorePoints;
    const point = choosePoint(await points.list(), request.at ?? 'newest', startedAtMs, name);
    const recorded = recordedGuests(store);
    const accel = await chooseAccel(request.accel ?? this.#o.failover.accel);
    const { failover, log } = this.#o;
    const { network, networks } = planNetwork({ group: name, kind: 'test', asked: request.network, fallback: 'none', configured: failover.networks });
    const disks = await disksOf(points, point);
    await mkdir(this.#o.failover.overlayFolder, { recursive: true, mode: 0o700 });
    const budgetBytes = await this.#budget(name, request.budgetBytes ?? null, disks);

    const folder = join(this.#o.failover.overlayFolder, `${groupId.slice(0, 12)}-test`);
    let note: Noted = {
      groupId, group: name, point: { term: point.term, point: point.point }, cutAtMs: point.cutAtMs, folder, guests: placeGuests(recorded, folder),
      holdReason: `test failover of ${name} (${randomBytes(4).toString('hex')})`, holdId: null, network, networks, startedAtMs,
      endsAtMs: startedAtMs + (request.limitMs ?? testLimitMsDefault), budgetBytes, disks: disks.map(({ disk }) => disk),
    };
    await this.#note(note);
    try {
      const { holdId } = await points.hold(point, note.holdReason, null);
      note = { ...note, holdId };
      await this.#note(note);
      // Of a test that ended while nobody could note it.
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const bootDisks = await this.#overlay(groupId, point, disks, folder, budgetBytes);
      await runHook(failover.hooks, 'beforeStart', hookFacts(note), log);
      const guests = await launchGuests(note.guests, recorded, bootDisks, { of: name, network, networks, accel, isStopped: true, manager: failover.manager, isTrial: true, log });
      note = { ...note, guests };
      await this.#note(note);
      await this.#run(note);
      void runHookAfter(failover.hooks, 'afterStart', hookFacts(note), log);
      log.info({ group: name, point: note.point }, `a test of ${name} runs from point ${formatPoint(point)}`);
      return { group: name, point, rtoMs: monotonicMs() - askedMs, ageMs: Math.max(0, startedAtMs - point.cutAtMs), endsAtMs: note.endsAtMs, budgetBytes, ...startedGuests(note.guests), accel, network };
    } catch (error) {
      await this.#endQuietly(note, 'interrupted');
      throw error;
    }
  }

  /** Those that come first run when it resolves. */
  async #run({ groupId, group, guests, point }: Noted): Promise<void> {
    const { failover, clock, log } = this.#o;
    const start = new GroupStart({
      group, guests, starts: failover.starts?.[group] ?? {}, facts: { for: 'test', point: formatPoint(point) },
      run: async (guest) => { await eachMonitor([guest], runReady); }, awaitReady, clock, log,
    });
    this.#starts.set(groupId, start);
    await start.first;
  }

  async #overlay(groupId: string, point: RestorePoint, disks: readonly ViewDisk[], folder: string, fileBytesMax: number): Promise<BootDisk[]> {
    const overlays: BootDisk[] = [];
    for (const viewDisk of disks) {
      const { disk, name, sizeBytes } = viewDisk;
      const path = overlayPath(folder, disk);
      const backing = { socketPath: this.#o.viewSocketPath, exportName: pointExportName(groupId, disks, viewDisk, point) };
      await makeOverlay(path, { kind: 'view', backing, sizeBytes }, fileBytesMax);
      overlays.push({ disk, name, path, format: 'qcow2', backing, fileBytesMax });
    }
    return overlays;
  }

  async #budget(name: string, askedBytes: number | null, disks: readonly ViewDisk[]): Promise<number> {
    const freeBytes = await this.#freeBytes();
    const budget = testBudget({ askedBytes, freeBytes, neededBytes: this.#neededBytes, disksBytes: disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) });
    if ('budgetBytes' in budget) return budget.budgetBytes;
    throw new Fault('TEST_SPACE', `a test of ${name} needs ${askedBytes ?? testBudgetBytesMin} bytes (at least ${testBudgetBytesMin}) for what its guest writes, and ${budget.sparedBytes} can be spared`, {
      group: name, askedBytes, freeBytes, sparedBytes: budget.sparedBytes, budgetBytesMin: testBudgetBytesMin,
    });
  }

  /** The store stops taking a segment before its minimum is reached; a test has gone a segment before that. */
  get #neededBytes(): number {
    return this.#o.keepFreeBytes + 2 * segmentBytes;
  }

  async #freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#o.failover.overlayFolder);
    return bavail * bsize;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      for (const { groupId } of [...this.#noted.values()]) {
        if (signal.aborted) return;
        try {
          // A test that is being started or ended has its turn; it is looked at after that.
          await this.#o.turns.take(groupId, () => this.#look(groupId));
        } catch (error) {
          this.#tell(groupId, error, 'could not be looked after');
        }
      }
      await delay(paceMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  async #look(groupId: string): Promise<void> {
    const note = this.#noted.get(groupId);
    if (note === undefined) return;
    const paths = note.disks.map((disk) => overlayPath(note.folder, disk));
    const isRunning = reportGuests(note.guests).some((guest) => guest.isRunning);
    const usedBytes = await allocatedBytes(paths);
    this.#usedBytes.set(groupId, usedBytes);
    const runState = isRunning ? await this.#runState(note) : null;
    const why = whyTestEnds({
      nowMs: this.#o.clock.nowMs(), endsAtMs: note.endsAtMs, isRunning, runState, usedBytes, budgetBytes: note.budgetBytes,
      freeBytes: await this.#freeBytes(), neededBytes: this.#neededBytes,
    });
    if (why !== null) await this.#endQuietly(note, why);
    // The view was away for longer than a request waits.
    else if (runState === 'io-error') await this.#continue(note);
  }

  /** Of the first that was stopped by an error, if any. */
  async #runState({ guests }: Noted): Promise<string | null> {
    try {
      const states = await eachMonitor(await lookUpGuests(guests), runStateOf);
      return states.find((state) => state === 'io-error') ?? states[0] ?? null;
    } catch (error) {
      // QEMU may be ending, or stand still until the view is back; limit and budget hold all the same.
      if (isFault(error)) return null;
      throw error;
    }
  }

  async #continue({ group, guests }: Noted): Promise<void> {
    try {
      await eachMonitor(await lookUpGuests(guests), async (qmp) => { if (await runStateOf(qmp) === 'io-error') await continueGuest(qmp); });
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#o.log.warn({ group, code: error.code }, error.message);
    }
  }

  /** As {@link #end}; what fails is logged and tried again by the next look. */
  async #endQuietly(note: Noted, why: TestEnd): Promise<void> {
    try {
      await this.#end(note, why);
    } catch (error) {
      this.#tell(note.groupId, error, 'could not be cleaned up');
    }
  }

  #tell(groupId: string, error: unknown, what: string): void {
    // A bug is none of the world's troubles, which bear a code.
    if (!(error instanceof Error && 'code' in error)) throw error;
    if (this.#told.has(groupId)) return;
    this.#told.add(groupId);
    const group = this.#noted.get(groupId)?.group ?? groupId;
    this.#o.log.error({ group, err: error }, `the test of ${group} ${what}; it is tried again`);
  }

  /** Guest, files, hold, note, in this order: as long as there is a trace, the note tells where. */
  async #end(note: Noted | undefined, why: TestEnd): Promise<void> {
    if (note === undefined) return;
    await this.#starts.get(note.groupId)?.stop();
    this.#starts.delete(note.groupId);
    await stopGuests(await lookUpGuests(note.guests));
    for (const { folder } of note.guests) await forgetManaged(folder);
    await rm(note.folder, { recursive: true, force: true });
    await releaseHold(this.#o.pointsOf(note.groupId), note);
    await rm(this.#notePath(note.groupId), { force: true });
    this.#noted.delete(note.groupId);
    this.#usedBytes.delete(note.groupId);
    this.#told.delete(note.groupId);
    this.#ended.set(note.groupId, { group: note.group, point: note.point, endedAtMs: this.#o.clock.nowMs(), why });
    this.#o.log.info({ group: note.group, point: note.point, why }, `the test of ${note.group} has ended (${why}) and left nothing behind`);
  }

  #rule(store: GroupStore, step: FailoverStep): void {
    const { name, state } = store.report();
    const ruling = rule({ name, state, isTesting: this.isTesting(store.groupId), failedOverPid: null }, step);
    if (!ruling.may) throw new Fault('FAILOVER_STATE', ruling.why, { group: name, state });
  }

  #notePath(groupId: string): string {
    return join(this.#o.folder, `${groupId}.json`);
  }

  async #note(note: Noted): Promise<void> {
    await replaceJson(this.#notePath(note.groupId), note);
    this.#noted.set(note.groupId, note);
  }
}

function hookFacts({ group, groupId, point, guests }: Noted): HookFacts {
  return { for: 'test', group, groupId, point, guests };
}

async function disksOf(points: GroupPoints, point: RestorePoint): Promise<readonly ViewDisk[]> {
  const view = await points.open(point);
  const { disks } = view;
  await view.release();
  return disks;
}
