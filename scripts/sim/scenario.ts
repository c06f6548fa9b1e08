/**
 * One simulated run: a guest protected from one host to another, operators, and faults, all by the seed; then no more faults, and what must come true in the end. What must be
 * true throughout is checked as it happens. A run that breaks a promise ends with what it broke.
 */
import { isFault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import type { FailoverNote } from '../../replica-target/failover/failover-note.ts';
import { diskBlocks, emptyDisks, ModelQemu, type Truth } from './model-qemu.ts';
import { groupId, leaseTtlMs, ModelSource } from './model-source.ts';
import { difference, ModelTarget, readPointOf } from './model-target.ts';
import { ModelWitness } from './model-witness.ts';
import { Network } from './network.ts';
import { World, type Life } from './world.ts';

/** Defects that can be planted, each a wrong order of two steps. */
export const breaks = ['ack-before-sync', 'term-after-boot', 'torn-cut', 'trim-before-ack', 'trim-before-mark', 'say-before-note', 'lease-forgotten'] as const;
export type Break = typeof breaks[number];

export interface RunResult {
  readonly seed: number;
  /** Of everything that happened, in order. */
  readonly digest: string;
  readonly violation: string | null;
  /** The log's last lines. */
  readonly tail: readonly string[];
  readonly counts: ReadonlyMap<string, number>;
}

/** Steps with faults, and the time that each takes at most, ms. */
const stepsMax = 160;
const stepMsMax = 600;
/** How long all may take to come to rest once nothing fails any more, ms. */
const restMsMax = 240_000;

class Violation extends Error {}

export async function simulate(seed: number, broken: Break | null, tailLines?: number): Promise<RunResult> {
  const world = new World(seed, tailLines);
  const scenario = new Scenario(world, broken);
  let violation: string | null = null;
  try {
    await scenario.run();
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    violation = error.message;
    world.log(`BROKEN: ${violation}`);
  } finally {
    scenario.end();
  }
  return { seed, digest: world.digest(), violation, tail: world.tail, counts: world.counts };
}

class Scenario {
  readonly #world: World;
  readonly #truth: Truth = new Map();
  readonly #network: Network;
  /** Whether each side reaches the witness. Null: there is none in this run. */
  readonly #reach: { source: boolean; target: boolean } | null;
  readonly #source: ModelSource;
  readonly #target: ModelTarget;
  #writes = 0;
  #acknowledged: PointId | null = null;
  /** The failover whose guest was started, as long as it was not rolled back. */
  #running: FailoverNote | null = null;
  #isAsked = false;
  #violation: string | null = null;
  /** The newest point when the guest that a failover started began to run. */
  #newestThen: PointId | null = null;

  constructor(world: World, broken: Break | null) {
    this.#world = world;
    const secret = Buffer.alloc(32, 7);
    const fingerprint = 'ab'.repeat(32);
    const isLying = broken === 'ack-before-sync' ? (path: string) => path.endsWith('.seg') : broken === 'trim-before-mark' ? (path: string) => path.endsWith('/mark.json.new') : () => false;
    this.#network = new Network(world);
    this.#reach = world.dice.chance(0.5) ? { source: true, target: true } : null;
    const witness = new ModelWitness(world);
    const reachOf = (side: 'source' | 'target') => (this.#reach === null ? null : (life: Life) => witness.client(life, () => this.#reach![side], leaseTtlMs / 10));
    this.#target = new ModelTarget({
      world, truth: this.#truth, secret, fingerprint, witness: reachOf('target'), isLying, isTermLate: broken === 'term-after-boot', onRun: (note, qemu) => this.#onRun(note, qemu), violate: (what) => this.#violate(what),
    });
    this.#source = new ModelSource({
      world, network: this.#network, target: this.#target, secret, fingerprint, witness: reachOf('source'), isLeaseForgotten: broken === 'lease-forgotten', truth: this.#truth, onAcknowledged: (point) => this.#onAcknowledged(point),
      isTrimmedEarly: broken === 'trim-before-ack', isNotedLate: broken === 'say-before-note',
      ...(broken === 'torn-cut' ? { torn: (qemu: ModelQemu) => { if (qemu.state === 'running') this.#write(qemu); } } : {}),
    });
    this.#source.qemu = new ModelQemu(emptyDisks(), 'running');
  }

  async run(): Promise<void> {
    const { dice } = this.#world;
    await this.#startTarget();
    this.#source.start();
    for (let step = 0; step < stepsMax; step += 1) {
      this.#guestsWrite();
      this.#act();
      await this.#pass(1 + dice.integer(stepMsMax));
    }
    await this.#rest();
  }

  end(): void {
    this.#source.life?.end();
    this.#target.life?.end();
  }

  #violate(what: string): void {
    this.#violation ??= what;
  }

  #check = (): void => {
    if (this.#violation !== null) throw new Violation(this.#violation);
    if (this.#reach !== null && this.#source.qemu?.state === 'running' && this.#source.qemu.isThere && [...this.#target.qemus.values()].some(({ isThere, state }) => isThere && state === 'running')) throw new Violation('the guest runs on both sides, and there is a witness');
    const report = this.#target.store()?.report();
    if (report === undefined || this.#running === null) return;
    // The guest runs at the target: nothing of an older term comes any more.
    if (report.newest !== null && this.#newestThen !== null && report.newest.term < this.#running.term && comparePoints(report.newest, this.#newestThen) > 0) {
      throw new Violation(`point ${formatPoint(report.newest)} landed after the failover to term ${this.#running.term}`);
    }
  };

  #pass(ms: number): Promise<void> {
    return this.#world.pass(ms, this.#check);
  }

  #onAcknowledged(point: PointId): void {
    this.#acknowledged = { term: point.term, point: point.point };
  }

  #onRun(note: FailoverNote, _qemu: ModelQemu): void {
    this.#running = note;
    this.#newestThen = this.#target.store()?.report().newest ?? null;
    const { qemu } = this.#source;
    if (note.handover !== null && qemu?.isThere === true && qemu.state === 'running') this.#violate('a planned failover runs its guest at the target while it runs at the source');
    if (note.handover !== null && this.#isPlannedSafe && this.#source.noted?.state !== 'relinquished') this.#violate('the guest runs at the target, and its source has not let go of it');
  }

  /** Nobody said in the source's place that it let go. */
  #isPlannedSafe = true;

  #guestsWrite(): void {
    const { dice } = this.#world;
    for (const qemu of [this.#source.qemu, ...this.#target.qemus.values()]) {
      if (qemu === null || !qemu.isThere || qemu.state !== 'running') continue;
      for (let count = dice.integer(6); count > 0; count -= 1) this.#write(qemu);
    }
  }

  #write(qemu: ModelQemu): void {
    const disk = this.#world.dice.integer(diskBlocks.length);
    qemu.write(disk, this.#world.dice.integer(diskBlocks[disk]!), this.#writes += 1);
  }

  #act(): void {
    const { dice } = this.#world;
    const roll = dice.integer(240);
    if (roll < 4) this.#setNetwork(!this.#network.isUp);
    else if (roll < 6) this.#network.isUp ? this.#blip() : this.#setNetwork(true);
    else if (roll < 9) this.#restartTarget(() => this.#target.kill());
    else if (roll < 12) this.#restartTarget(() => this.#target.cutPower());
    else if (roll < 15) this.#target.disk.cutAt = this.#target.disk.operations + 1 + dice.integer(60);
    else if (roll < 18) this.#restartSource();
    else if (roll < 20) this.#restartGuest();
    else if (roll < 26) this.#operate();
    else if (roll < 34 && this.#reach !== null) this.#cutWitness(this.#reach);
    // The power came back by itself.
    if (!this.#target.isUp && this.#target.life?.isOver === true) void this.#startTarget();
  }

  #setNetwork(isUp: boolean): void {
    this.#network.set(isUp);
    this.#world.log(`network ${isUp ? 'up' : 'down'}`);
    if (!isUp) this.#world.count('network cuts');
  }

  /** Now and then with the network: what is lost of a host is lost whole. */
  #cutWitness(reach: { source: boolean; target: boolean }): void {
    const { dice } = this.#world;
    const side = dice.chance(0.7) ? 'source' : 'target';
    reach[side] = !reach[side];
    this.#world.log(`the witness ${reach[side] ? 'is reached' : 'is not reached'} by the ${side}`);
    this.#world.count('cuts of the witness');
    if (side === 'source' && dice.chance(0.7)) this.#setNetwork(reach.source);
  }

  #blip(): void {
    this.#setNetwork(false);
    this.#setNetwork(true);
  }

  #restartTarget(how: () => void): void {
    if (this.#target.life?.isOver !== false) return;
    this.#world.count('target restarts');
    how();
  }

  #isStarting = false;

  async #startTarget(): Promise<void> {
    if (this.#isStarting) return;
    this.#isStarting = true;
    this.#target.disk.cutAt = Infinity;
    // If it dies on the way, this never resolves, and the next try does.
    const life = this.#world;
    void this.#target.start().then(() => this.#inspect(), (error: unknown) => { this.#violate(`the target does not start: ${String(error)}`); });
    this.#target.life!.atEnd(() => { this.#isStarting = false; });
    await Promise.resolve(life);
    this.#isStarting = false;
  }

  #restartSource(): void {
    this.#world.count('source restarts');
    this.#source.kill();
    this.#source.start();
  }

  #restartGuest(): void {
    const { qemu, noted } = this.#source;
    if (qemu === null || noted?.state === 'relinquished') return;
    this.#world.log('the guest’s QEMU at the source ends, and is started anew');
    this.#world.count('guest restarts');
    // Whoever starts guests looks whether they may run.
    const isLive = qemu.state === 'running' && this.#source.leases?.mayRun(groupId) !== false;
    qemu.kill();
    // Whoever starts guests does not start one that is being handed over.
    this.#source.qemu = new ModelQemu(qemu.disks, isLive || (noted === null && this.#reach === null) ? 'running' : noted === null ? 'paused' : 'shutdown');
    if (this.#source.qemu.state === 'paused') this.#source.stoppedFor = true;
  }

  #operate(): void {
    const { dice } = this.#world;
    const { failovers } = this.#target;
    const store = this.#target.store();
    if (failovers === null || store === null || this.#isAsked) return;
    const { state, name } = store.report();
    const roll = dice.integer(10);
    if (state === 'failed-over' && roll < 5) return this.#ask('roll back', () => failovers.stop(store, true), () => { this.#running = null; });
    if (roll < 4) {
      this.#isPlannedSafe &&= state === 'protected';
      return this.#ask('fail over', async () => {
        const points = await store.restorePoints.list();
        const chosen = points.length > 1 && dice.chance(0.4) ? dice.pick(points) : null;
        const result = await failovers.failOver(store, { group: name, ...(chosen === null ? {} : { at: formatPoint(chosen) }) });
        this.#world.count('failovers');
        return result;
      });
    }
    if (roll < 8) {
      return this.#ask('planned failover', async () => {
        await failovers.failOver(store, { group: name, planned: { shutdownMs: 1000 + dice.integer(4000), onLimit: dice.chance(0.5) ? 'stop' : 'give-up' } });
        this.#world.count('planned failovers');
      });
    }
  }

  #ask(what: string, act: () => Promise<unknown>, then: () => void = () => undefined): void {
    this.#world.log(`operator: ${what}`);
    this.#isAsked = true;
    this.#target.life!.atEnd(() => { this.#isAsked = false; });
    act().then(() => {
      this.#world.log(`${what}: done`);
      this.#isAsked = false;
      then();
    }, (error: unknown) => {
      this.#isAsked = false;
      if (!isFault(error)) return this.#violate(`${what}: ${error instanceof Error ? error.stack ?? error.message : String(error)}`);
      this.#world.log(`${what}: ${error.code}`);
    });
  }

  /** What was acknowledged is there, and what is there is what it was. */
  async #inspect(): Promise<void> {
    const store = this.#target.store();
    if (store === null) {
      if (this.#acknowledged !== null) this.#violate(`the group is gone, and ${formatPoint(this.#acknowledged)} was acknowledged`);
      return;
    }
    try {
      const report = store.report();
      if (report.held !== null) return this.#violate(`the group is held: ${report.held.code}: ${report.held.message}`);
      const { newest } = report;
      if (this.#acknowledged !== null && (newest === null || comparePoints(newest, this.#acknowledged) < 0)) {
        return this.#violate(`${formatPoint(this.#acknowledged)} was acknowledged, and ${newest === null ? 'nothing' : formatPoint(newest)} is there`);
      }
      const points = await store.restorePoints.list();
      for (const point of [...points.slice(-2), ...(points.length > 2 ? [this.#world.dice.pick(points)] : [])]) await this.#compare(point);
    } catch (error) {
      this.#violate(`looking at the points: ${isFault(error) ? `${error.code}: ${error.message}` : String(error)}`);
    }
  }

  async #compare(point: PointId): Promise<void> {
    const store = this.#target.store();
    if (store === null) return;
    const expected = this.#truth.get(formatPoint(point));
    if (expected === undefined) return this.#violate(`point ${formatPoint(point)} is there and was never cut`);
    const found = await readPointOf(store, point);
    if (found.some((bytes, disk) => !bytes.equals(expected[disk]!))) this.#violate(`point ${formatPoint(point)} is not what the disks held: ${difference(found, expected)}`);
  }

  /** Nothing fails any more: all that was promised comes true. */
  async #rest(): Promise<void> {
    this.#world.log('no more faults');
    this.#target.disk.cutAt = Infinity;
    if (!this.#network.isUp) this.#setNetwork(true);
    if (this.#reach !== null) this.#reach.source = this.#reach.target = true;
    for (let passedMs = 0; passedMs < restMsMax && !(await this.#isAtRest()); passedMs += 1000) {
      if (!this.#target.isUp && this.#target.life?.isOver === true) void this.#startTarget();
      if (passedMs % 10_000 === 0) this.#revive();
      this.#guestsWrite();
      await this.#pass(1000);
    }
    if (!await this.#isAtRest()) throw new Violation(`nothing fails any more, and it does not come to rest: ${this.#standing()}`);
    await this.#pass(5000);
    const store = this.#target.store()!;
    let compared = 0;
    for (const point of await store.restorePoints.list()) {
      await this.#compare(point);
      compared += 1;
    }
    this.#world.log(`${compared} points are what the disks held`);
    this.#check();
  }

  /** What an operator does who finds that nothing runs: the guest died with its host, or did not come up. */
  #revive(): void {
    const store = this.#target.store();
    const { failovers } = this.#target;
    if (store === null || failovers === null || this.#isAsked || store.report().state === 'protected') return;
    if (![...this.#target.qemus.values()].some((qemu) => qemu.isThere && qemu.state === 'running')) {
      this.#isPlannedSafe = false;
      this.#ask('fail over', () => failovers.failOver(store, { group: 'web' }));
    }
  }

  #standing(): string {
    const { qemu, noted, supervisor } = this.#source;
    const report = this.#target.store()?.report();
    const guests = [...this.#target.qemus.values()].map(({ state, isThere }) => (isThere ? state : 'gone'));
    return `source ${supervisor?.report().phase ?? 'down'} (${supervisor?.report().detail ?? ''}), guest there ${qemu?.isThere === true ? qemu.state : 'gone'}, noted ${noted?.state ?? 'nothing'}; target ${report?.state ?? 'down'} in term ${report?.term ?? 0}, guests here: ${guests.join(', ') || 'none'}, asked: ${this.#isAsked}`;
  }

  /** Exactly one side has the guest, and knows it. */
  async #isAtRest(): Promise<boolean> {
    const { qemu, noted, supervisor } = this.#source;
    const store = this.#target.store();
    if (store === null || this.#isAsked || supervisor === null) return false;
    const { state, newest } = store.report();
    const runsHere = [...this.#target.qemus.values()].some((one) => one.isThere && one.state === 'running');
    const runsThere = qemu?.isThere === true && qemu.state === 'running';
    const { phase } = supervisor.report();
    switch (state) {
      case 'protected': return runsThere && !runsHere && noted === null && phase === 'protected' && newest !== null && comparePoints(newest, this.#acknowledged ?? newest) >= 0;
      // The old guest may run on, and is not taken for the live one.
      case 'failed-over': case 'committed': return runsHere && (noted?.state === 'relinquished' ? !runsThere : phase === 'superseded');
      default: return state satisfies never;
    }
  }
}

