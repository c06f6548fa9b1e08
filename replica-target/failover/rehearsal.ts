/**
 * Rehearsals: a point is booted as a test failover, its guests have to become ready as they would in earnest, what they showed is kept, and nothing of it is left running. The result
 * is a report that stands for itself; a point whose guests all became ready is proven. By a person's word, or by schedule, one at a time.
 * Invariant: a rehearsal is noted before its test begins, so that one that was cut short is found, ended and reported as such by the next process.
 */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { AccelChoice, TestNetwork, TestResult } from '../operations.ts';
import { choosePoint } from '../points/point-selector.ts';
import type { GroupStore } from '../store/store.ts';
import { lookAtGuest, shownGuest, type ShownGuest } from './guest-look.ts';
import { rehearsalPage } from './rehearsal-page.ts';
import { judgeRehearsal, rehearsalReport, type RehearsalReport } from './rehearsal-report.ts';
import type { TestFailovers } from './test-failover.ts';

export interface RehearsalRequest {
  readonly group: string;
  /** The point (points/point-selector.ts). In place of the newest. */
  readonly at?: string | undefined;
  readonly accel?: AccelChoice | undefined;
  readonly network?: TestNetwork | undefined;
  /** The test goes on afterwards, until it is stopped or its limit comes. */
  readonly isKept?: boolean | undefined;
}

export interface RehearsalsOptions {
  /** A folder for each group, absolute. */
  readonly folder: string;
  /** By group's name, ms. */
  readonly everyMs: Readonly<Record<string, number>>;
  readonly tests: TestFailovers;
  readonly stores: () => readonly GroupStore[];
  readonly version: string;
  readonly clock: Clock;
  readonly log: Logger;
}

const provenPoints = z.array(z.object({ term: z.number().int(), point: z.number().int(), atMs: z.number() }));
export type ProvenPoint = z.infer<typeof provenPoints>[number];

const running = rehearsalReport.pick({ group: true, groupId: true, point: true, startedAtMs: true, by: true });

/** Reports that are kept of each group. */
const reportsMax = 20;
/** Pace of looking whether one is due, ms. */
const paceMs = 5_000;

export class Rehearsals {
  readonly #o: RehearsalsOptions;
  readonly #last = new Map<string, RehearsalReport & { readonly folder: string }>();
  /** When one was begun by schedule that may have come to no report. */
  readonly #tried = new Map<string, number>();
  /** Of each group that ever passed one. */
  readonly #passedAtMs = new Map<string, number>();
  readonly #closing = new AbortController();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: RehearsalsOptions) {
    this.#o = options;
  }

  /** Ends what an earlier process left in the middle. Tests are open. */
  async open(): Promise<void> {
    await mkdir(this.#o.folder, { recursive: true, mode: 0o700 });
    for (const store of this.#o.stores()) {
      const { name } = store.report();
      const cut = await readJson(this.#runningPath(name), running);
      if (cut !== null) {
        if (this.#o.tests.isTesting(store.groupId)) await this.#o.tests.stop(store).catch((error: unknown) => this.#tell(name, error));
        await this.#keep({ ...cut, endedAtMs: this.#o.clock.nowMs(), version: this.#o.version, isPassed: false, why: 'the target was ended in the middle of it', rtoMs: null, readyMs: null, accel: null, network: null, guests: [] }, []);
      }
      const newest = (await this.#reports(name)).at(-1);
      if (newest === undefined) continue;
      const folder = join(this.#folderOf(name), newest);
      try {
        const known = await readJson(join(folder, 'report.json'), rehearsalReport);
        if (known !== null) this.#last.set(name, { ...known, folder });
        for (const { atMs } of await this.proven(name)) this.#passed(name, atMs);
      } catch (error) {
        // For people, and nothing that a target needs.
        this.#tell(name, error);
      }
    }
    void this.#schedule();
  }

  /** The last of each group. */
  report(): readonly (RehearsalReport & { readonly folder: string; readonly lastPassedAtMs: number | null })[] {
    return [...this.#last.values()].map((report) => ({ ...report, lastPassedAtMs: this.#passedAtMs.get(report.group) ?? null }));
  }

  /** Points of the group whose guests all became ready, when they were rehearsed last. */
  async proven(group: string): Promise<readonly ProvenPoint[]> {
    return await readJson(this.#provenPath(group), provenPoints) ?? [];
  }

  /** What the guests of the last one showed at its end; empty where there was none, or nothing was booted. */
  async shown(group: string): Promise<readonly ShownGuest[]> {
    const last = this.#last.get(group);
    if (last === undefined) return [];
    const kept = (name: string | null): Promise<Buffer | null> => (name === null ? Promise.resolve(null) : readFile(join(last.folder, name)).catch((error: NodeJS.ErrnoException) => { if (error.code !== 'ENOENT') throw error; return null; }));
    return Promise.all(last.guests.map(async ({ name, screen, screenWhy, serial }) => shownGuest(name, { screen: await kept(screen), screenWhy, serial: (await kept(serial))?.toString('utf8') ?? '' })));
  }

  /** Resolves when it is over, passed or not. Faults: those of a test failover. */
  rehearse(store: GroupStore, request: RehearsalRequest, by: 'person' | 'schedule' = 'person'): Promise<RehearsalReport & { readonly folder: string }> {
    const rehearsed = this.#turn.then(() => this.#rehearse(store, request, by));
    this.#turn = rehearsed.catch(() => undefined);
    return rehearsed;
  }

  /** One that is under way ends when its test is let go of. */
  close(): Promise<void> {
    this.#closing.abort(new Error('the target ends'));
    return Promise.resolve();
  }

  async #rehearse(store: GroupStore, { isKept, ...request }: RehearsalRequest, by: 'person' | 'schedule'): Promise<RehearsalReport & { readonly folder: string }> {
    const { tests, clock, version } = this.#o;
    const { groupId } = store;
    const { name } = store.report();
    const startedAtMs = clock.nowMs();
    await mkdir(this.#folderOf(name), { recursive: true, mode: 0o700 });
    if (store.report().state !== 'protected' || tests.isTesting(groupId)) throw new Fault('FAILOVER_STATE', `${name} cannot be rehearsed now: ${tests.isTesting(groupId) ? 'a test of it is under way' : 'it has failed over'}`, { group: name });
    const { term, point, kind, cutAtMs } = choosePoint(await store.restorePoints.list(), request.at ?? 'newest', startedAtMs, name);
    const noted = { group: name, groupId, point: { term, point, kind, cutAtMs }, startedAtMs, by };
    await replaceJson(this.#runningPath(name), noted);
    let test: TestResult;
    try {
      test = await tests.start(store, { ...request, group: name, at: formatPoint({ term, point }) });
    } catch (error) {
      if (!isFault(error)) throw error;
      // That it does not boot is what a rehearsal is there to find.
      return this.#keep({ ...noted, endedAtMs: clock.nowMs(), version, isPassed: false, why: `${error.code}: ${error.message}`, rtoMs: null, readyMs: null, accel: null, network: null, guests: [] }, []);
    }
    const started = await tests.whenStarted(groupId);
    // The next process finds it, ends it and says so.
    if (this.#closing.signal.aborted) throw new Fault('FAILOVER_STATE', `the target ends in the middle of the rehearsal of ${name}`, { group: name });
    // A test that was ended by something else shows nothing any more.
    const guests = tests.guestsOf(groupId);
    const shown = await Promise.all(guests.map(lookAtGuest));
    const ended = guests.length === 0 ? tests.ended().find(({ group }) => group === name)?.why ?? 'asked' : null;
    if (isKept !== true && guests.length > 0) await tests.stop(store);
    const { isPassed, why, readyMs } = judgeRehearsal(started, ended);
    // Its report is what says that the mark is there.
    if (isPassed) await this.#prove(store, name, { term, point });
    return this.#keep({
      ...noted, endedAtMs: clock.nowMs(), version, isPassed, why, rtoMs: test.rtoMs, readyMs, accel: test.accel, network: test.network,
      guests: started.map((guest, at) => ({ ...guest, checks: [...guest.checks], screen: shown[at]?.screen == null ? null : `${guest.name}.png`, screenWhy: shown[at]?.screenWhy ?? '', serial: `${guest.name}.log` })),
    }, started.map(({ name: guest }, at) => ({ guest, screen: shown[at]?.screen ?? null, serial: shown[at]?.serial ?? '' })));
  }

  /** Files first, the report last: a folder with a report is whole. */
  async #keep(report: RehearsalReport, shown: readonly { readonly guest: string; readonly screen: Buffer | null; readonly serial: string }[]): Promise<RehearsalReport & { readonly folder: string }> {
    const { group, startedAtMs, isPassed, why } = report;
    const folder = join(this.#folderOf(group), new Date(startedAtMs).toISOString().replace(/[:.]/g, '-'));
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const { guest, screen, serial } of shown) {
      if (screen !== null) await writeFile(join(folder, `${guest}.png`), screen, { mode: 0o600 });
      await writeFile(join(folder, `${guest}.log`), serial, { mode: 0o600 });
    }
    await writeFile(join(folder, 'report.html'), rehearsalPage(report, shown), { mode: 0o600 });
    await replaceJson(join(folder, 'report.json'), report);
    await rm(this.#runningPath(group), { force: true });
    for (const old of (await this.#reports(group)).slice(0, -reportsMax)) await rm(join(this.#folderOf(group), old), { recursive: true, force: true });
    const kept = { ...report, folder };
    this.#last.set(group, kept);
    if (isPassed) this.#passed(group, report.endedAtMs);
    if (isPassed) this.#o.log.info({ group, point: report.point, readyMs: report.readyMs }, `a rehearsal of ${group} from point ${formatPoint(report.point)} passed`);
    else this.#o.log.error({ group, point: report.point, folder }, `a rehearsal of ${group} from point ${formatPoint(report.point)} failed: ${why}`);
    return kept;
  }

  /** Marks of points that are gone go with them. */
  async #prove(store: GroupStore, group: string, { term, point }: PointId): Promise<void> {
    const there = new Set((await store.restorePoints.list()).map(formatPoint));
    const others = (await this.proven(group)).filter((one) => there.has(formatPoint(one)) && (one.term !== term || one.point !== point));
    await replaceJson(this.#provenPath(group), [...others, { term, point, atMs: this.#o.clock.nowMs() }]);
  }

  async #schedule(): Promise<void> {
    const { clock, everyMs } = this.#o;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      for (const store of this.#o.stores()) {
        const { name, state, newest } = store.report();
        const every = everyMs[name];
        // A rehearsal is no more than that: it never stands in the way of what happens in earnest.
        if (every === undefined || newest === null || state !== 'protected' || this.#o.tests.isTesting(store.groupId)) continue;
        if (clock.nowMs() - Math.max(this.#last.get(name)?.startedAtMs ?? 0, this.#tried.get(name) ?? 0) < every) continue;
        this.#tried.set(name, clock.nowMs());
        try {
          await this.rehearse(store, { group: name }, 'schedule');
        } catch (error) {
          this.#tell(name, error);
        }
        if (signal.aborted) return;
      }
      await clock.delay(paceMs, signal).catch(() => undefined);
    }
  }

  #tell(group: string, error: unknown): void {
    if (!(error instanceof Fault) && !(error instanceof Error && 'code' in error)) throw error;
    this.#o.log.error({ group, err: error }, `a rehearsal of ${group}: ${error.message}`);
  }

  /** By time. */
  async #reports(group: string): Promise<string[]> {
    try {
      return (await readdir(this.#folderOf(group), { withFileTypes: true })).filter((entry) => entry.isDirectory()).map(({ name }) => name).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return [];
    }
  }

  #passed(group: string, atMs: number): void {
    this.#passedAtMs.set(group, Math.max(atMs, this.#passedAtMs.get(group) ?? 0));
  }

  #folderOf(group: string): string { return join(this.#o.folder, group); }
  #runningPath(group: string): string { return join(this.#folderOf(group), 'running.json'); }
  #provenPath(group: string): string { return join(this.#folderOf(group), 'proven.json'); }
}
