/**
 * Unplanned failover of one group: what is sealed is applied, the term is raised durably, and the guest boots on overlays with
 * the hardware that was recorded for it. The newest point lies under the overlays as the plain replica; an older one is a view
 * that this target serves, held until the guest's data has come home. What is allowed when is failover-plan.ts. Each step is
 * noted in a file of its own first, so that a target that was killed in between finds the guest, the hold and the overlays.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { RecordedGuest } from '../../qemu/group-hardware.ts';
import type { SourceOrders } from '../ingest/source-orders.ts';
import type { FailoverRequest, FailoverResult, TargetOptions } from '../operations.ts';
import { chooseUnlessNewest } from '../points/point-selector.ts';
import type { GroupPoints, RestorePoint } from '../points/points.ts';
import type { FailedOverGuest } from '../report.ts';
import type { GroupStore } from '../store/store.ts';
import type { Adoption } from './adoption.ts';
import { askToYield } from './ask-to-yield.ts';
import type { Claims } from './claims.ts';
import type { ComingHome, FailoverHost } from './failover-host.ts';
import { isAwaited, isWithItsSource, type FailoverNote } from './failover-note.ts';
import { reportFailover } from './failover-report.ts';
import { bootedPoint, failoverResult, type Asked } from './failover-result.ts';
import { refuseOtherPoint, refuseRollBack, rule, type FailoverStep } from './failover-plan.ts';
import { areAll, areSome, firstOf, placeGuests, recordedGuests } from './group-guests.ts';
import { GroupStart } from './group-start.ts';
import type { GroupTurns } from './group-turns.ts';
import { holdPoint, releaseHold } from './held-point.ts';
import { LetGoWaits } from './let-go.ts';
import { planNetwork, type ChosenNetwork } from './network-plan.ts';
import type { TestFailovers } from './test-failover.ts';

export interface FailoversOptions {
  readonly failover: TargetOptions['failover'];
  /** What replication must find free. */
  readonly keepFreeBytes: number;
  readonly host: FailoverHost;
  /** Null: the group is not here any more. */
  readonly pointsOf: (groupId: string) => GroupPoints | null;
  readonly stores: () => readonly GroupStore[];
  readonly turns: GroupTurns;
  readonly tests: TestFailovers;
  /** What sources are asked for a planned failover. */
  readonly orders: SourceOrders;
  readonly adoption: Adoption;
  /** Null: there is no witness, and when to fail over is a person's decision. */
  readonly claims: Claims | null;
  /** Removes a group whose images have become a guest's again. */
  readonly retire: (groupId: string) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Failovers {
  readonly #o: FailoversOptions;
  readonly #noted = new Map<string, FailoverNote>();
  readonly #homecomings = new Map<string, ComingHome>();
  readonly #starts = new Map<string, GroupStart>();
  readonly #letGo: LetGoWaits;
  readonly #closing = new AbortController();
  /** The last trouble of each group that was told. */
  readonly #told = new Map<string, string>();
  #deciding: Promise<void> = Promise.resolve();
  #stores: (groupId: string) => GroupStore | null = () => null;

  constructor(options: FailoversOptions) {
    this.#o = options;
    this.#letGo = new LetGoWaits(options.clock);
  }

  /** Takes up what an earlier process left. `stores` are open, views are served. */
  async open(stores: readonly GroupStore[], find: (groupId: string) => GroupStore | null): Promise<void> {
    this.#stores = find;
    this.#o.orders.listener = {
      onRelinquished: (groupId, term) => this.#onRelinquished(groupId, term),
      onAnnounced: (groupId) => this.#onAnnounced(groupId),
      onHandedOver: (groupId) => this.#behind(groupId, (store) => this.#handedOver(store)),
    };
    for (const note of await this.#o.host.notes()) {
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
    this.#deciding = this.#decide();
    this.#o.claims?.start({ stores: () => this.#o.stores(), turns: this.#o.turns, isFailedOver: (groupId) => this.#noted.has(groupId) });
  }

  report(): FailedOverGuest[] {
    return [...this.#noted.values()].map((note) => reportFailover(note, this.#o.host, this.#starts.get(note.groupId)?.states() ?? [], this.#homecomings.get(note.groupId)?.report() ?? null));
  }

  failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    return this.#o.turns.take(store.groupId, () => this.#failOver(store, request));
  }

  /** Ends the guest that runs here. `isRolledBack`: its overlays go, and the group takes deltas again. */
  stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    return this.#o.turns.take(store.groupId, () => this.#stop(store, isRolledBack));
  }

  /** Resolves when it is under way. */
  commit(store: GroupStore): Promise<void> {
    return this.#o.turns.take(store.groupId, () => this.#commit(store));
  }

  /** Guests go on; what is asked of them stops. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#o.orders.listener = null;
    await this.#deciding;
    await Promise.all([...this.#noted.keys()].map((groupId) => this.#settle(groupId)));
  }

  async #failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    const asked: Asked = { monotonicMs: this.#o.clock.monotonicMs(), atMs: this.#o.clock.nowMs() };
    const before = store.report();
    const { planned, isWitnessed = true } = request;
    const known = await this.#known(store.groupId);
    // Its source never said that it let go of the guest, and whoever asks now says so in its place.
    if (known !== undefined && isAwaited(known) && areAll(known.guests) && planned === undefined) return this.#runAwaited(store, known, asked, request);
    if (known !== undefined && areSome(known.guests) && !isAwaited(known)) await this.#startWaiting(known, isWitnessed).catch((error: unknown) => this.#tell(known.group, error));
    const { endsTest } = this.#rule(store, known, planned === undefined ? 'fail-over' : 'plan');
    if (before.newest === null) throw new Fault('FAILOVER_NO_POINT', `${before.name} has no sealed point yet`, { group: before.name });
    if (planned !== undefined && request.at !== undefined) throw new Fault('REQUEST_INVALID', 'a planned failover boots the final point, and no other', { at: request.at });
    const chosen = request.at === undefined ? null : await chooseUnlessNewest(() => store.restorePoints.list(), request.at, asked.atMs, before.name);
    const machine: Machine = { recorded: recordedGuests(store), accel: await this.#o.host.accel(request.accel ?? this.#o.failover.accel), ...planNetwork({ group: before.name, kind: 'failover', asked: request.network, fallback: this.#o.failover.network, configured: this.#o.failover.networks }) };
    const isRestart = known !== undefined && before.state !== 'protected';
    if (isRestart) {
      const refusal = refuseOtherPoint(before.name, known.point, chosen);
      if (refusal !== null) throw new Fault('FAILOVER_STATE', refusal, { group: before.name, ...known.point });
    }
    if (endsTest) await this.#o.tests.endForFailover(store);
    // What ended of it starts anew, and is looked after anew.
    if (isRestart) await this.#settle(store.groupId);
    if (planned === undefined) {
      // It may have gone elsewhere since it ran here.
      if (isRestart && isWitnessed) await this.#claim(known, false);
      const begun = isRestart ? known : await this.#begin(store, chosen, asked.atMs, null, isWitnessed);
      const booted = await this.#boot(store, begun, machine, isRestart);
      return this.#result(store, booted, asked, machine, await this.#afterwards(store, await this.#run(store, booted), request));
    }
    const handover = await askToYield(this.#o.orders, store, planned);
    let ready: FailoverNote;
    try {
      const begun = await this.#begin(store, null, asked.atMs, handover, isWitnessed);
      const booted = await this.#boot(store, begun, machine, false);
      await this.#letGo.wait(store.groupId, before.name, () => this.#o.orders.tell({ t: 'takeOver', group: store.groupId, id: handover.id, term: booted.term, sourceId: booted.adopted?.sourceId ?? before.sourceId }));
      ready = booted;
    } catch (error) {
      await this.#callBack(store, handover, error);
      throw error;
    }
    // From here on there is no other guest to go back to: what fails is tried again.
    return this.#result(store, ready, asked, machine, await this.#afterwards(store, await this.#run(store, ready), { decision: { act: 'commit', afterMs: 0 }, ...request }));
  }

  /** The guest stands still when it resolves, if it has to wait for its source, or for those who follow what it writes. */
  async #boot(store: GroupStore, begun: FailoverNote, { recorded, accel, network, networks }: Machine, isRestart: boolean): Promise<FailoverNote> {
    const { kind, cutAtMs, arrivedAtMs, changedBytes, label } = await bootedPoint(store, begun);
    let note: FailoverNote = { ...begun, facts: { kind, cutAtMs, arrivedAtMs, changedBytes, ...(label === undefined ? {} : { label }) } };
    const disks = await this.#o.host.images(store, note);
    if (note.isHome) await store.lendImages(true);
    // Noted first: whatever dies meanwhile, they are found by their sockets.
    if (note.guests.length === 0) note = { ...note, guests: placeGuests(recorded, note.folder) };
    await this.#note(note);
    await this.#o.host.hook('beforeStart', note);
    const guests = await this.#o.host.launch(note.guests, recorded, disks, { of: note.group, network, networks, accel });
    note = { ...note, guests };
    await this.#note(note);
    const isFollowed = !isRestart && this.#o.adoption.isPossible;
    if (isFollowed) {
      note = { ...note, adopted: await this.#o.adoption.give(store, note.guests, note.view === null ? note.point : null) };
      await this.#note(note);
    }
    return note;
  }

  /** Durable, then it runs; from here on the group is its who follows the guest. */
  async #run(store: GroupStore, booted: FailoverNote): Promise<FailoverNote> {
    if (booted.adopted !== null) await store.own(booted.adopted.sourceId);
    const note: FailoverNote = { ...booted, handover: booted.handover === null ? null : { ...booted.handover, state: 'taken' } };
    await this.#note(note);
    await this.#start(note);
    this.#hold(note);
    void this.#o.host.hookAfter('afterStart', note);
    return note;
  }

  /** As long as its guests run here and are this target's matter. */
  #hold({ groupId, group }: FailoverNote): void {
    this.#o.claims?.hold(groupId, group, () => {
      const note = this.#noted.get(groupId);
      return note !== undefined && !isAwaited(note) && !isWithItsSource(note) && note.guests.some((guest) => this.#o.host.isRunning(guest)) ? note.term : null;
    });
  }

  /** What an earlier process had begun to start. Those that were all started are asked nothing any more. */
  async #startWaiting(note: FailoverNote, isWitnessed: boolean): Promise<void> {
    if (!await this.#o.host.isWaiting(note.guests)) return;
    if (isWitnessed) await this.#claim(note, false);
    await this.#start(note);
  }

  /** Resolves when those that come first run; the others follow behind it. */
  async #start({ groupId, group, guests, term, point }: FailoverNote): Promise<void> {
    await this.#starts.get(groupId)?.stop();
    const { host, failover, clock, log } = this.#o;
    const start = new GroupStart({
      group, guests: guests.filter(({ pid }) => pid !== null), starts: failover.starts?.[group] ?? {}, facts: { for: 'failover', term, point: formatPoint(point) },
      run: (guest) => host.run([guest]), awaitReady: host.awaitReady, clock, log,
    });
    this.#starts.set(groupId, start);
    await start.first;
  }

  /** The guest runs: what is still to be done about it goes on behind it. */
  async #afterwards(store: GroupStore, note: FailoverNote, { decision }: Pick<FailoverRequest, 'decision'>): Promise<FailoverNote> {
    this.#bringHome(store, note);
    if (decision === undefined) return note;
    const decided: FailoverNote = { ...note, decision: { act: decision.act, atMs: this.#o.clock.nowMs() + decision.afterMs } };
    await this.#note(decided);
    return decided;
  }

  #result(store: GroupStore, booted: FailoverNote, asked: Asked, { accel }: Pick<Machine, 'accel'>, after: FailoverNote): Promise<FailoverResult> {
    return failoverResult(store, booted, after, asked, accel, this.#o.clock);
  }

  async #runAwaited(store: GroupStore, known: FailoverNote, asked: Asked, request: FailoverRequest): Promise<FailoverResult> {
    const accel = await this.#o.host.accel(request.accel ?? this.#o.failover.accel);
    if (request.isWitnessed !== false) await this.#claim(known, true);
    await this.#o.host.hook('fence', known);
    this.#o.log.warn({ group: known.group }, `${known.group} runs here, and its source did not say that it let go of it`);
    return this.#result(store, known, asked, { accel }, await this.#afterwards(store, await this.#run(store, known), request));
  }

  /** Nothing ran here: the source takes its guest up again. Not where it may have let go. */
  async #callBack(store: GroupStore, { id }: Handover, error: unknown): Promise<void> {
    if (isFault(error, 'SOURCE_ABSENT') && error.facts['isReady'] === true) return;
    // The source need not wait for what is cleared away here: nothing runs.
    await this.#undo(store).finally(() => this.#o.orders.tell({ t: 'recall', group: store.groupId, id }));
  }

  /** From failed over to protected: what ran here is ended and thrown away. */
  async #undo(store: GroupStore): Promise<void> {
    const note = await this.#known(store.groupId);
    await this.#settle(store.groupId);
    if (note !== undefined) await this.#o.host.stop(note.guests);
    if (note?.isHome === true) await store.lendImages(false);
    if (note?.adopted != null) await this.#o.adoption.takeBack(store, note.adopted.formerSourceId);
    if (store.report().state === 'failed-over') await store.rollBack();
    if (note === undefined) return;
    await this.#drop(note);
    await this.#o.host.hookAfter('afterRollBack', note);
  }

  /** The term is nobody else's when it resolves. */
  #claim = ({ groupId, group: name, term }: FailoverNote, isFree: boolean): Promise<void> | undefined => this.#o.claims?.claim({ groupId, name, term, isFree });

  /** Of a failover of which nothing came. */
  async #drop(note: FailoverNote): Promise<void> {
    await this.#forget(note);
    await this.#o.claims?.giveBack(note.groupId, note.group);
  }

  #onRelinquished(groupId: string, term: number): void {
    const note = this.#noted.get(groupId);
    if (note === undefined || !isAwaited(note) || note.term !== term) return;
    if (this.#letGo.heard(groupId, 'let go')) return;
    this.#behind(groupId, async (store) => {
      const now = await this.#known(groupId);
      if (now === undefined || !isAwaited(now) || !areAll(now.guests)) return;
      await this.#afterwards(store, await this.#run(store, now), { decision: { act: 'commit', afterMs: 0 } });
      this.#o.log.warn({ group: now.group }, `the source of ${now.group} has let go of it: it runs here`);
    });
  }

  #onAnnounced(groupId: string): void {
    const note = this.#noted.get(groupId);
    if (note === undefined || !isAwaited(note) || this.#letGo.heard(groupId, 'kept')) return;
    this.#behind(groupId, async (store) => {
      const now = this.#noted.get(groupId);
      if (now === undefined || !isAwaited(now)) return;
      this.#o.log.warn({ group: now.group }, `the source of ${now.group} kept its guest: the planned failover is undone`);
      await this.#undo(store);
    });
  }

  /** The guest that ran here runs elsewhere now: what is left of it here is ended and thrown away. */
  async #handedOver(store: GroupStore): Promise<void> {
    const note = await this.#known(store.groupId);
    if (note === undefined || store.report().state !== 'protected') return;
    await this.#o.host.stop(note.guests);
    await this.#forget(note);
  }

  /** In the group's turn, for nobody who waits. */
  #behind(groupId: string, act: (store: GroupStore) => Promise<void>): void {
    const store = this.#stores(groupId);
    if (store === null) return;
    this.#o.turns.take(groupId, () => act(store)).catch((error: unknown) => this.#tell(store.report().name, error));
  }

  #tell(group: string, error: unknown): void {
    // A bug is none of the world's troubles, which bear a code.
    if (!(error instanceof Error && 'code' in error)) throw error;
    // Met again and again until somebody does something about it; said once.
    if (this.#told.get(group) === error.code) return;
    this.#told.set(group, String(error.code));
    this.#o.log.error({ group, err: error }, `the failover of ${group} could not be gone on with: ${error.message}`);
  }

  async #commit(store: GroupStore): Promise<void> {
    const known = await this.#known(store.groupId);
    this.#rule(store, known, 'commit');
    if (known === undefined || isAwaited(known)) throw new Fault('FAILOVER_STATE', `${store.report().name} waits for its source to let go of it`, { group: store.report().name });
    if (known.isCommitting) return;
    const replicaBytes = known.isHome ? 0 : store.report().replicaBytes;
    const freeBytes = await this.#o.host.freeBytes();
    // What has come home already is counted twice: a little more is asked for than is needed.
    const neededBytes = replicaBytes + this.#o.keepFreeBytes;
    if (freeBytes < neededBytes) throw new Fault('COMMIT_SPACE', `the images of ${known.group} need up to ${replicaBytes} bytes to stand alone, and ${freeBytes} are free`, { group: known.group, freeBytes, neededBytes });
    const note: FailoverNote = { ...known, isCommitting: true, decision: null };
    await this.#note(note);
    await this.#homecomings.get(store.groupId)?.stop();
    this.#bringHome(store, note);
  }

  /** What was to be decided by itself at a certain time, until it has been. */
  async #decide(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      for (const note of [...this.#noted.values()]) {
        const { groupId, group, decision } = note;
        const store = this.#stores(groupId);
        // A guest that came home and has ended since is nobody's here.
        if (note.isHome && store === null && !note.guests.some((guest) => this.#o.host.isRunning(guest))) await this.#forget(note).catch((error: unknown) => this.#tell(group, error));
        if (decision === null || store === null || this.#o.clock.nowMs() < decision.atMs) continue;
        try {
          await (decision.act === 'commit' ? this.commit(store) : this.stop(store, true));
        } catch (error) {
          this.#tell(group, error);
          await this.#o.clock.delay(decideAgainMs, signal).catch(() => undefined);
        }
      }
      await this.#o.clock.delay(decideMs, signal).catch(() => undefined);
    }
  }

  /** From protected to failed over: noted first, then held, then the term. Nothing has booted when it resolves. */
  async #begin(store: GroupStore, chosen: RestorePoint | null, startedAtMs: number, handover: FailoverNote['handover'], isClaimed: boolean): Promise<FailoverNote> {
    const { name, state, newest, applied, term: before } = store.report();
    const { groupId } = store;
    // Its term was raised, and what died then left no note: nothing can have booted.
    const isRaised = state === 'failed-over';
    const term = isRaised ? before : before + 1;
    const isNewest = chosen === null || (chosen.term === newest?.term && chosen.point === newest.point);
    const point: PointId = isNewest ? applied ?? { term: 0, point: 0 } : { term: chosen.term, point: chosen.point };
    const folder = join(this.#o.failover.overlayFolder, `${groupId.slice(0, 12)}-${term}`);
    // First of all: whatever fails or dies from here on, the failover is known, can be asked for again, or rolled back.
    // Home on its own old disks: nothing is left to go back to, as its source let go of it, and nothing to bring home.
    // On the old disks its points would be lost: while any is locked it boots on overlays, as anywhere else.
    const isHome = handover !== null && store.report().isReclaimed && (store.lockedForMs?.() ?? 0) === 0;
    let note: FailoverNote = { isHome, groupId, group: name, term, point, folder, guests: [], startedAtMs, facts: null, view: null, handover, adopted: null, isCommitting: false, decision: null };
    const hold = (noted: FailoverNote, at: RestorePoint): Promise<FailoverNote> => holdPoint(store, noted, at, (kept) => this.#note(kept));
    try {
      await this.#note(note);
      if (isClaimed) await this.#claim(note, handover === null);
      // After the claim, which may be refused: a host that holds its lease is not to be shot.
      if (handover === null && !isRaised) await this.#o.host.hook('fence', note);
      if (!isNewest) note = await hold(note, chosen);
      const raised = isRaised ? { term, point: await store.drain() ?? point } : await store.failOver();
      note = { ...note, term: raised.term };
      // What arrived while it was being asked for is newer than what was asked for, if that was named.
      if (isNewest && chosen !== null && (raised.point.term !== chosen.term || raised.point.point !== chosen.point)) note = await hold(note, chosen);
      else if (isNewest) note = { ...note, point: { term: raised.point.term, point: raised.point.point } };
      await this.#note(note);
    } catch (error) {
      if (store.report().state !== 'failed-over') await this.#drop(this.#noted.get(groupId) ?? note);
      throw error;
    }
    this.#o.log.warn({ group: name, term: note.term, point: note.point }, `failing over ${name} to point ${formatPoint(note.point)}`);
    return note;
  }

  async #stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    const known = await this.#known(store.groupId);
    // A roll-back that was cut short left a note of a group that is protected again.
    if (known === undefined || store.report().state === 'failed-over') this.#rule(store, known, isRolledBack ? 'roll-back' : 'stop');
    await this.#settle(store.groupId);
    // What had come home until then was noted meanwhile.
    const note = this.#noted.get(store.groupId);
    if (note === undefined) {
      // The term was raised, and what died then had not even noted it.
      if (isRolledBack) await store.rollBack();
      return;
    }
    // A source that let go has nothing to go back to, and one that is silent may have let go.
    if (isRolledBack && note.handover !== null) throw new Fault('FAILOVER_STATE', refuseRollBack(note.group, note.handover.state), { group: note.group });
    if (isRolledBack) return this.#undo(store);
    await this.#o.host.stop(note.guests);
    await this.#note({ ...note, guests: note.guests.map((guest) => ({ ...guest, pid: null })), decision: null });
  }

  /** Nothing more is started of it, nor asked of its guests. */
  async #settle(groupId: string): Promise<void> {
    await Promise.all([this.#starts.get(groupId)?.stop(), this.#homecomings.get(groupId)?.stop()]);
  }

  /** Files, hold and note, in this order: as long as there is a trace, the note tells where. */
  async #forget(note: FailoverNote): Promise<void> {
    await this.#settle(note.groupId);
    await this.#o.claims?.letGo(note.groupId);
    this.#starts.delete(note.groupId);
    this.#homecomings.delete(note.groupId);
    await this.#o.host.removeFolder(note.folder);
    if (note.view !== null) await releaseHold(this.#o.pointsOf(note.groupId), note.view);
    await this.#o.host.forget(note.groupId);
    this.#noted.delete(note.groupId);
  }

  async #takeUp(store: GroupStore, note: FailoverNote): Promise<void> {
    const guests = await this.#o.host.lookUp(note.guests);
    if (store.report().state === 'protected') {
      // Killed before the term was raised, or in the middle of a roll-back: nothing of it counts.
      await this.#o.host.stop(guests);
      await this.#drop(note);
      return;
    }
    if (guests !== note.guests) await this.#note({ ...note, guests });
    // Killed between the decision that it runs and its running.
    if (areAll(guests) && !isAwaited(note)) await this.#startWaiting({ ...note, guests }, true).catch((error: unknown) => this.#tell(note.group, error));
    this.#hold(note);
    this.#bringHome(store, { ...note, guests });
  }

  /** All that is not in the guest's own images, when it was booted from a view, or is to be committed. */
  #bringHome(store: GroupStore, { groupId, group, guests, view, isCommitting }: FailoverNote): void {
    if (!areAll(guests) || !(isCommitting || view?.isHome === false)) return;
    const sizes = new Map((view?.disks ?? store.report().disks.filter(({ isAtApplied }) => isAtApplied)).map(({ disk, sizeBytes }) => [disk, sizeBytes]));
    const recorded = recordedGuests(store);
    this.#homecomings.set(groupId, this.#o.host.bringHome({
      group, log: this.#o.log, onHome: async () => { await this.#arrived(store.groupId); },
      guests: guests.map((guest, at) => ({
        folder: guest.folder, isRunning: () => this.#o.host.isRunning(guest), sizes: new Map([...sizes].filter(([disk]) => recorded[at]?.disks?.includes(disk) ?? true)),
      })),
    }));
  }

  async #arrived(groupId: string): Promise<void> {
    const note = this.#noted.get(groupId);
    if (note === undefined) return;
    // Its images are the guest's: nothing here may take them for a replica any more, nor for a point.
    if (note.isHome) await this.#o.retire(groupId);
    // The replica is written to again: from here on nothing may need it as it is.
    else if (note.isCommitting && this.#stores(groupId)?.report().state === 'failed-over') await this.#stores(groupId)?.commit();
    if (note.isCommitting) void this.#o.host.hookAfter('afterCommit', note);
    await this.#note({ ...note, isCommitting: false, view: note.view === null ? null : { ...note.view, isHome: true } });
    if (note.view !== null) await releaseHold(this.#o.pointsOf(groupId), note.view);
    this.#o.log.info({ group: note.group, point: note.point }, `all data of ${note.group} has come home: it depends on its own images alone${note.isCommitting ? ', and the failover is committed' : ''}`);
  }

  #rule(store: GroupStore, note: FailoverNote | undefined, step: FailoverStep): { readonly endsTest: boolean } {
    const { name, state } = store.report();
    const ruling = rule({ name, state, isTesting: this.#o.tests.isTesting(store.groupId), failedOverPid: note !== undefined && areAll(note.guests) ? firstOf(note.guests).pid : null }, step);
    if (!ruling.may) throw new Fault('FAILOVER_STATE', ruling.why, { group: name, state, ...(note === undefined || !areSome(note.guests) ? {} : { pid: note.guests.find(({ pid }) => pid !== null)!.pid }) });
    return ruling;
  }

  /** Whether its guest runs is looked at anew: a pid that is noted is one that runs. */
  async #known(groupId: string): Promise<FailoverNote | undefined> {
    const note = this.#noted.get(groupId);
    const guests = await this.#o.host.lookUp(note?.guests ?? []);
    if (note === undefined || guests.every((guest, at) => guest === note.guests[at])) return note;
    const found = { ...note, guests };
    await this.#note(found);
    return found;
  }

  async #note(note: FailoverNote): Promise<void> {
    await this.#o.host.note(note);
    this.#noted.set(note.groupId, note);
  }
}

/** Pace of looking for what is to be decided, and after a decision that could not be carried out, ms. */
const [decideMs, decideAgainMs] = [500, 5_000];

type Machine = { readonly recorded: readonly RecordedGuest[]; readonly accel: 'kvm' | 'tcg' } & ChosenNetwork
type Handover = NonNullable<FailoverNote['handover']>;

