/**
 * The `cbt` capture: dirty bitmaps say what changed, backup jobs copy it into the spool at one instant for all disks. This file
 * holds the state of one guest's capture and puts the steps together; what a step does to QEMU is in dirty-copy.ts,
 * mirror-pass.ts and guest-objects.ts, what is decided in cycle-plan.ts and reconcile-plan.ts.
 *
 * Invariant: at every moment, whatever dies, the bitmap named by the target's newest sealed point holds at least all that
 * changed since then, on every disk; it is removed only when a bitmap named by a newer acknowledged point is there. A cut's own
 * bitmap ends with its QEMU, and gets a point's name only when that point is acknowledged: else an older copy of an image could
 * bring back the bitmap of a cut that was given up, under the name of the point that another cut became.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { splitListener } from '../../host/listener-path.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint, isSamePoint, type PointId, type PointKind } from '../../journal/point.ts';
import { findAgentChannel, type AgentChannel } from '../../qemu/agent-channel.ts';
import { connectGuest } from '../../qemu/connect-guest.ts';
import { takeDiskInventory, takeStorageDaemonInventory, type GuestDisk } from '../../qemu/guest-disks.ts';
import { recordGuest } from '../../qemu/guest-definition.ts';
import { offHold, type OffHold } from '../../qemu/off-hold.ts';
import type { Capture, CaptureChoice, CapturedDelta, CapturedDisk, CapturedGuest, CaptureFigures, CaptureStanding, CutHold, DiskSize, FullPassOptions, FullPassSink, GuestPower } from './capture.ts';
import { beginAt, guestPower } from './begin-at.ts';
import { addBitmap, mergeBitmap, removeBitmap, replaceBitmap, type BitmapAction } from './bitmap-actions.ts';
import { planCycle, type CyclePlan } from './cycle-plan.ts';
import { copyDirty, type CopyContext } from './dirty-copy.ts';
import { dirtyBytesOf, dirtySince } from './dirty-count.ts';
import { probeQuorum, refuseMigration } from './guest-checks.ts';
import { listOwn, queryNodes, removeAllButBitmapsAndLogs, removeBitmaps } from './guest-objects.ts';
import { JobWatch } from './job-watch.ts';
import { mirrorDisks, passBufferBytesMax, passBufferBytesMin, PassPause } from './mirror-pass.ts';
import { bitmapName, CycleStamps, ownPrefix, parseLogNode, parseBitmapName, shortGroup, type BitmapRole } from './object-names.ts';
import { planReconcile } from './reconcile-plan.ts';
import { planAcknowledged, planDropped, planRound, planRoundAcknowledged, planRoundDropped, roundNames, sourceRole, type SettleGuest, type Standing } from './settle-plan.ts';
import { Spool, type SpoolOptions } from './spool.ts';
import { SpooledDelta, type DeltaOutcome, type DeltaPart } from './spooled-delta.ts';
import { takeInstant, type Instant } from './writelog/instant.ts';
import { isLogFault, LogKeeper } from './writelog/log-keeper.ts';
import { WriteLogs, type LogGuest } from './writelog/write-logs.ts';

export interface CbtCaptureOptions {
  /** 32 lower-case hex digits. */
  readonly groupId: string;
  readonly qmpPath: string;
  readonly spool: SpoolOptions;
  readonly clock: Clock;
  readonly log: Logger;
  /** For a qemu-storage-daemon, which has no devices: the nodes that are the disks. */
  readonly storageDaemonDisks?: readonly { readonly name: string; readonly node: string }[];
  readonly capture?: CaptureChoice;
  /** The pace of the cuts, ms: what `auto` goes by. */
  readonly rpoMs?: number;
  /** How long a full pass lets a request of QEMU's wait for the link, ms; the NBD server's own limit when absent. */
  readonly passStallLimitMs?: number;
}

/** Room for the guest's writes between count and cut, as a factor; doubled when a delta broke, up to the second. */
const marginMin = 1.25;
const marginMax = 10;

/** The pace when none is given, ms. */
const cbtPaceMs = 5000;

type Link = LogGuest & { readonly ended: AbortController };

interface SurveyedDisk { readonly disk: number; readonly trackNode: string; readonly sizeBytes: number; readonly bitmap: string; readonly dirtyBytes: number }
interface Survey { readonly disks: readonly SurveyedDisk[]; readonly plan: CyclePlan }

export class CbtCapture implements Capture {
  readonly #o: CbtCaptureOptions;
  readonly #spool: Spool;
  readonly #stamps = new CycleStamps();
  #link: Link | null = null;
  #offHold: OffHold | null = null;
  #disks: readonly GuestDisk[] = [];
  #isVhdUsable = true;
  /** Null: reconcile first. */
  #standing: Standing | null = null;
  #delta: SpooledDelta | null = null;
  #isPassed = false;
  /** Of the next full pass. */
  #passBufferBytes = passBufferBytesMax;
  readonly #pause = new PassPause();
  #margin = marginMin;
  readonly #logs: WriteLogs;
  readonly #keeper: LogKeeper;
  /** What has to do with the logs happens one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #figures = { dirtyBytes: 0, inPathMs: 0, cutMs: 0, cycles: 0, logCuts: 0, droppedCycles: 0, rounds: 0 };

  constructor(options: CbtCaptureOptions) {
    this.#o = options;
    this.#spool = new Spool(options.spool, `${shortGroup(options.groupId)}-`);
    const { groupId, clock, log } = options;
    this.#logs = new WriteLogs({ groupId, clock, log, spool: this.#spool, stamps: this.#stamps, notePath: join(options.spool.folder, `${shortGroup(groupId)}-logs.json`) });
    this.#keeper = new LogKeeper({ logs: this.#logs, clock, log, choice: options.capture ?? 'cbt', rpoMs: options.rpoMs ?? cbtPaceMs });
  }

  async connect(): Promise<CapturedGuest> {
    this.#unlink();
    this.#standing = null;
    const { qmp, owner } = await connectGuest(this.#o.qmpPath);
    const { major, minor } = qmp.version;
    try {
      if (major < 7 || (major === 7 && minor < 2)) throw new Fault('GUEST_UNSUITED', `QEMU ${major}.${minor} is older than 7.2, the oldest that was verified`, { version: qmp.version });
      const link = this.#link = { qmp, watch: new JobWatch(qmp, this.#o.clock), owner, ended: new AbortController(), listDisks: () => this.#listDisks() };
      this.#isVhdUsable = true;
      this.#disks = await this.#listDisks();
      const hardware = this.#o.storageDaemonDisks === undefined ? await recordGuest(qmp, this.#o.qmpPath) : {};
      void qmp.closed.then((fault) => link.ended.abort(fault));
      void this.#keeper.tend(link, link.ended.signal, (act) => this.#inTurn(act));
      return { disks: this.disks(), hardware };
    } catch (error) {
      qmp.close();
      this.#unlink();
      throw error;
    }
  }

  choose(capture: CaptureChoice): void {
    this.#keeper.choose(capture);
  }

  park(): Promise<void> {
    return this.#inTurn(async () => { if (this.#logs.isIn) await this.#giveUpLogs('the daemon ends'); });
  }

  closed(): Promise<Fault> {
    return this.#linked().qmp.closed;
  }

  disks(): readonly CapturedDisk[] {
    return this.#disks.map(({ name, sizeBytes }, disk) => ({ disk, name, sizeBytes }));
  }

  figures(): CaptureFigures {
    return {
      ...this.#figures, spoolBytes: this.#spool.usedBytes, spoolBudgetBytes: this.#spool.budgetBytes,
      capture: this.#logs.isIn ? 'writelog' : 'cbt', captureWhy: this.#keeper.why, logBytes: this.#logs.usedBytes,
    };
  }

  async measureDirtyBytes(): Promise<number> {
    this.#figures.dirtyBytes = dirtySince((await queryNodes(this.#linked().qmp)).bitmaps, this.#disks, this.#o.groupId);
    return this.#figures.dirtyBytes;
  }

  reconcile(held: PointId | null, heldParts = 0): Promise<CaptureStanding> {
    return this.#inTurn(() => this.#reconcile(held, heldParts));
  }

  async #reconcile(held: PointId | null, heldParts: number): Promise<CaptureStanding> {
    assert(this.#delta === null, 'a delta is ended before the next reconcile');
    const { qmp, watch } = this.#linked();
    this.#standing = null;
    await this.#sweep();
    await probeQuorum(qmp, this.#o.groupId, this.#stamps.next(this.#o.clock.nowMs()));
    this.#disks = await this.#listDisks();
    const { bitmaps } = await queryNodes(qmp);
    const disks = this.#disks.map(({ name, trackNode }, disk) => ({ disk, name, trackNode }));
    const plan = planReconcile({ groupId: this.#o.groupId, held, heldParts, disks, bitmaps });
    // Removed first: a stray bitmap may bear the name of one that is to be made.
    const strays = plan.promotions.flatMap(({ node, to }) => plan.removals.filter((one) => one.node === node && one.name === to));
    await removeBitmaps(qmp, strays);
    if (plan.promotions.length > 0) await this.#transact(plan.promotions.flatMap(({ disk, node, from, to }) => replaceBitmap(node, from, to, this.#disks[disk]!.isBitmapPersistable)));
    if (plan.merges.length > 0) await this.#transact(plan.merges.map(({ node, target, source }) => mergeBitmap(node, target, source)));
    const refused = await removeBitmaps(qmp, plan.removals.filter((one) => !strays.includes(one)));
    if (refused.length > 0) this.#o.log.warn({ refused }, 'bitmaps of ours that would not go; they are not used');
    const goesOn = plan.standing.standing === 'ready' && plan.workParts === null && this.#keeper.wishes();
    await this.#logs.reconcile(this.#linked(), this.#disks, goesOn ? held : null);
    this.#disks = await this.#listDisks();
    watch.forgetBreaks((node) => parseLogNode(node) === undefined);
    if (plan.standing.standing === 'ready') this.#standing = { base: held!, work: plan.workParts };
    return plan.standing;
  }

  rest(): Promise<void> { return this.#spool.rest(); }
  agentChannel(): Promise<AgentChannel> { return findAgentChannel(this.#linked().qmp, splitListener(this.#o.qmpPath).uid); }
  power(): GuestPower { return guestPower(this.#linked().qmp, this.#o.clock, this.#offHold ??= offHold(this.#o.qmpPath)); }

  begin(base: PointId): Promise<void> { return this.#inTurn(() => beginAt(this.#linked().qmp, { groupId: this.#o.groupId, disks: this.#disks }, base)); }

  cut(base: PointId, next: PointId, kind: PointKind, hold?: CutHold): Promise<CapturedDelta> {
    return this.#inTurn(() => this.#cut(base, next, kind, hold));
  }

  async #cut(base: PointId, next: PointId, kind: PointKind, hold?: CutHold): Promise<CapturedDelta> {
    assert(this.#delta === null, 'a delta is ended before the next cut');
    const standing = this.#standing;
    if (standing === null) throw new Fault('GUEST_CHANGED', 'the capture has to reconcile with the target first');
    assert(isSamePoint(standing.base, base), `cut from ${formatPoint(base)}, the bitmaps are of ${formatPoint(standing.base)}`);
    this.#standing = null; // until the delta is ended well
    try {
      this.#delta = await this.#take(standing, next, kind, hold);
      void this.#keeper.observe(this.#linked(), this.#delta.changedBytes);
      return this.#delta;
    } catch (error) {
      if (isFault(error, 'CUT_PAUSED')) this.#standing = standing; // given up before the instant
      this.#figures.droppedCycles += 1;
      if (isFault(error, 'DELTA_BROKEN')) this.#margin = Math.min(marginMax, this.#margin * 2);
      // Logs of long ago may be what fills the spool.
      if (this.#link !== null && (isLogFault(error) || (isFault(error, 'SPOOL_FULL') && this.#logs.isIn))) await this.#keeper.pause(this.#link, error.message);
      throw error;
    }
  }

  /** The logs are in from before the pass on: what they hold then makes the fuzzy copy right, without a copy before any write. */
  fullPass(sink: FullPassSink, options: FullPassOptions): Promise<void> {
    return this.#inTurn(() => this.#fullPass(sink, options));
  }

  async #fullPass(sink: FullPassSink, options: FullPassOptions): Promise<void> {
    assert(this.#delta === null, 'a delta is ended before a full pass');
    const link = this.#linked();
    const { qmp, watch, owner } = link;
    this.#standing = null;
    this.#isPassed = false;
    await this.#sweep();
    if (this.#o.storageDaemonDisks === undefined) await refuseMigration(qmp);
    await this.#verifyDisks();
    // Whatever bitmaps there are belong to points that this pass makes worthless.
    await removeBitmaps(qmp, (await queryNodes(qmp)).bitmaps.filter(({ name }) => name.startsWith(ownPrefix)));
    await this.#giveUpLogs('the disks are passed over whole');
    await this.#attachLogs();
    const disks = this.#disks.map(({ topNode, trackNode, sizeBytes }, disk) => ({ disk, topNode, trackNode, sizeBytes }));
    await this.#transact(disks.map(({ disk, trackNode }) => addBitmap(trackNode, this.#name(disk, { role: 'pass' }), false)));
    let isStalled = false;
    try {
      const { clock, groupId, log, passStallLimitMs: stallLimitMs } = this.#o;
      const onFault = (fault: Fault): void => {
        log.debug({ code: fault.code }, fault.message);
        isStalled ||= fault.facts['stallLimitMs'] !== undefined;
      };
      const socketPath = join(this.#o.spool.folder, `${shortGroup(groupId)}-pass`);
      await mirrorDisks({ qmp, watch, owner, clock, groupId, stamp: this.#stamps.next(clock.nowMs()), onFault, socketPath, bufferBytes: this.#passBufferBytes, stallLimitMs }, disks, sink, options, this.#pause);
      await this.#verifyDisks();
      this.#isPassed = true;
    } catch (error) {
      // The link is slower than what QEMU had under way could wait for: less of it in the next try.
      if (isStalled) this.#passBufferBytes = Math.max(passBufferBytesMin, this.#passBufferBytes / 4);
      await this.#removePassBitmaps(link);
      throw error;
    }
  }

  settlePass(base: PointId): Promise<void> {
    return this.#inTurn(() => this.#settlePass(base));
  }

  async #settlePass(base: PointId): Promise<void> {
    assert(this.#isPassed, 'a pass is settled after it has ended well, once');
    this.#isPassed = false;
    await this.#transact(this.#disks.flatMap(({ trackNode, isBitmapPersistable }, disk) => (
      replaceBitmap(trackNode, this.#name(disk, { role: 'pass' }), this.#name(disk, { role: 'point', point: base }), isBitmapPersistable))));
    await this.#logs.begin(base);
    this.#standing = { base, work: null };
  }

  pausePass(isPaused: boolean): Promise<void> {
    return this.#pause.set(isPaused);
  }

  release(): Promise<void> {
    return this.#inTurn(() => this.#release());
  }

  async #release(): Promise<void> {
    const { qmp } = this.#linked();
    this.#standing = null;
    await this.#giveUpLogs('the guest is no longer protected');
    await this.#sweep();
    const { bitmaps } = await queryNodes(qmp);
    const refused = await removeBitmaps(qmp, bitmaps.filter(({ name }) => name.startsWith(ownPrefix)));
    const left = await listOwn(qmp);
    // Known: a saved bitmap on a node that became read-only beneath an external snapshot. It goes once that is committed back.
    if (left.length > 0) throw new Fault('GUEST_CHANGED', `not everything of ours could be taken out of the guest: ${left.join(', ')} (${refused.join('; ')})`, { left, refused });
    await this.close();
  }

  close(): Promise<void> {
    this.#unlink();
    return this.#spool.rest();
  }

  #unlink(): void {
    this.#link?.ended.abort(new Error('the connection is closed'));
    this.#link?.qmp.close();
    this.#link = null;
    this.#standing = null;
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  #linked(): Link {
    if (this.#link === null) throw new Fault('QMP_CLOSED', `there is no connection to ${this.#o.qmpPath}`, { path: this.#o.qmpPath });
    return this.#link;
  }

  async #listDisks(): Promise<readonly GuestDisk[]> {
    const { qmp } = this.#linked();
    const wanted = this.#o.storageDaemonDisks;
    const { disks, skipped } = wanted === undefined ? await takeDiskInventory(qmp) : await takeStorageDaemonInventory(qmp, wanted);
    if (disks.length === 0 || (wanted !== undefined && skipped.length > 0)) {
      throw new Fault('GUEST_UNSUITED', `the guest has no disk to protect (${skipped.map(({ name, reason }) => `${name}: ${reason}`).join('; ')})`, { skipped });
    }
    return disks;
  }

  async #verifyDisks(): Promise<void> {
    const now = await this.#listDisks();
    const describe = (disks: readonly GuestDisk[]): string => disks.map(({ name, trackNode }) => `${name} on ${trackNode}`).join(', ');
    if (describe(now) !== describe(this.#disks)) throw new Fault('GUEST_CHANGED', `the guest's disks were ${describe(this.#disks)}, and are now ${describe(now)}`);
    this.#disks = now;
  }

  /** Takes out what jobs, exports, nodes and files of ours there are, of this life or an earlier one. */
  async #sweep(): Promise<void> {
    const { qmp, watch } = this.#linked();
    await removeAllButBitmapsAndLogs(qmp, watch);
    await this.#spool.sweepImages();
  }

  /** A pass that failed leaves neither bitmaps nor logs behind; when the connection is over, the next reconcile removes them. */
  async #removePassBitmaps({ qmp }: Link): Promise<void> {
    try {
      await removeBitmaps(qmp, (await queryNodes(qmp)).bitmaps.filter(({ name }) => parseBitmapName(name)?.role === 'pass'));
      if (this.#logs.isIn) await this.#giveUpLogs('the pass that they were put in for failed');
    } catch (error) {
      if (!isFault(error, 'QMP_CLOSED')) throw error;
    }
  }

  /** What a cut now would copy of each disk, and whether that fits the spool. */
  async #survey(standing: Standing, hold?: CutHold): Promise<Survey> {
    const { bitmaps } = await queryNodes(this.#linked().qmp);
    const source = sourceRole(standing);
    const disks = this.#disks.map(({ trackNode, sizeBytes }, disk) => ({
      disk, trackNode, sizeBytes, bitmap: this.#name(disk, source), dirtyBytes: dirtyBytesOf(bitmaps, trackNode, this.#name(disk, source)),
    }));
    this.#figures.dirtyBytes = disks.reduce((sum, { dirtyBytes }) => sum + dirtyBytes, 0);
    return { disks, plan: planCycle(disks, Math.min(await this.#spool.roomBytes(), hold?.heldBytesMax ?? Infinity), this.#margin) };
  }

  async #take(standing: Standing, next: PointId, kind: PointKind, hold: CutHold | undefined): Promise<SpooledDelta> {
    if (this.#o.storageDaemonDisks === undefined) await refuseMigration(this.#linked().qmp);
    await this.#verifyDisks();
    if (standing.work === null && this.#logs.holds(standing.base)) {
      if (!this.#keeper.wishes()) await this.#giveUpLogs(this.#keeper.why);
      // Whether a log can be cut is known only after the instant, for which the guest is held still once: so then it is copied at once.
      else if (hold === undefined) {
        const delta = await this.#cutLogs(standing, next, kind);
        if (delta !== null) return delta;
      }
    }
    if (standing.work === null && !this.#logs.isIn) await this.#attachLogs();
    const survey = await this.#survey(standing, hold);
    // No guest is held for a round, which is no point.
    if (hold === undefined || survey.plan.kind !== 'whole') return this.#copy(standing, next, kind, survey);
    try {
      await hold.begin();
      // What the guest wrote out before it stood still counts as well.
      return await this.#copy(standing, next, kind, await this.#survey(standing, hold), hold);
    } finally {
      await hold.release(false);
    }
  }

  async #copy(standing: Standing, next: PointId, kind: PointKind, { disks, plan }: Survey, hold?: CutHold): Promise<SpooledDelta> {
    switch (plan.kind) {
      case 'full': throw new Fault('SPOOL_FULL', `the spool has ${plan.roomBytes} bytes left, the delta needs ${plan.needBytes}`, { ...plan });
      case 'whole': {
        const adds = disks.map(({ disk, trackNode }) => addBitmap(trackNode, this.#name(disk, { role: 'cut', point: next }), false));
        const copied = await copyDirty(this.#context(), {
          stamp: this.#stamps.next(this.#o.clock.nowMs()), bitmapMode: 'never', actionsBefore: adds,
          disks: disks.map((disk, index) => ({ ...disk, capBytes: plan.caps[index]!.capBytes })),
          actionsBehind: await this.#logs.cutActions(this.#linked()),
          ...(hold === undefined ? {} : { hold }),
        });
        this.#figures.cycles += 1;
        this.#margin = Math.max(marginMin, this.#margin * 0.9);
        const held = await hold?.release(true);
        try {
          await this.#keeper.mark(this.#linked(), next, this.#disks);
        } catch (error) {
          for (const one of copied.copied) await one.remove();
          throw error;
        }
        return this.#deltaOf(copied, disks, false, held ?? kind, (outcome) => this.#settlePoint(standing, next, outcome));
      }
      case 'round': {
        await hold?.release(false);
        const disk = { ...disks[plan.disk]!, bitmap: roundNames(this.#o.groupId, standing).work(plan.disk), capBytes: plan.capBytes };
        const copied = await copyDirty(this.#context(), {
          stamp: this.#stamps.next(this.#o.clock.nowMs()), bitmapMode: 'always', actionsBefore: planRound(this.#settleGuest(), standing, plan.disk),
          disks: [disk], round: plan,
        });
        this.#figures.rounds += 1;
        return this.#deltaOf(copied, disks, true, kind, (outcome) => this.#settleRound(standing, plan.disk, outcome));
      }
      default: return plan satisfies never;
    }
  }

  /** Cuts all logs at one instant, and reads what lies before. Null, and nothing is left of it: the guest discarded something, so the cut has to be copied. */
  async #cutLogs(standing: Standing, next: PointId, kind: PointKind): Promise<SpooledDelta | null> {
    const cut = (disk: number): string => this.#name(disk, { role: 'cut', point: next });
    const adds = this.#disks.map(({ trackNode }, disk) => addBitmap(trackNode, cut(disk), false));
    const cuts = await this.#logs.cutActions(this.#linked());
    const taken = await takeInstant(this.#context(), { disks: this.#disks, stamp: this.#stamps.next(this.#o.clock.nowMs()), adds, cuts });
    // After a round trip: whether what was cut is what the guest's devices write to.
    await this.#verifyDisks();
    const parts = await this.#logs.read(this.#linked(), standing.base, next, this.#disks);
    if (parts === null) {
      await this.#transact(this.#disks.map(({ trackNode }, disk) => removeBitmap(trackNode, cut(disk))));
      return null;
    }
    this.#figures.cycles += 1;
    this.#figures.logCuts += 1;
    this.#figures.dirtyBytes = 0;
    const sizes = this.#disks.map(({ sizeBytes }, disk) => ({ disk, sizeBytes }));
    return this.#deltaOf({ ...taken, copied: parts }, sizes, false, kind, (outcome) => this.#settlePoint(standing, next, outcome));
  }

  async #attachLogs(): Promise<void> {
    if (await this.#keeper.attach(this.#linked(), this.#disks)) this.#disks = await this.#listDisks();
  }

  async #giveUpLogs(why: string): Promise<void> {
    await this.#keeper.giveUp(this.#linked(), why);
    this.#disks = await this.#listDisks();
  }

  #deltaOf(
    copy: Instant & { readonly copied: readonly DeltaPart[] }, sizes: readonly DiskSize[], isRound: boolean, kind: PointKind, settle: (outcome: DeltaOutcome) => Promise<Standing | null>,
  ): SpooledDelta {
    this.#figures.cutMs = copy.cutMs;
    this.#figures.inPathMs = copy.inPathMs;
    const disks = sizes.map(({ disk, sizeBytes }) => ({ disk, sizeBytes }));
    return new SpooledDelta({
      isRound, kind, disks, cutAtMs: copy.cutAtMs, cutMonotonicMs: copy.cutMonotonicMs, parts: copy.copied,
      settle: async (outcome) => {
        this.#delta = null;
        if (outcome === 'dropped') this.#figures.droppedCycles += 1;
        if (outcome !== 'unknown') this.#standing = await this.#inTurn(() => settle(outcome));
      },
    });
  }

  async #settlePoint(standing: Standing, next: PointId, outcome: DeltaOutcome): Promise<Standing> {
    if (outcome === 'acknowledged') {
      await this.#transact(planAcknowledged(this.#settleGuest(), standing, next));
      if (this.#logs.isIn) await this.#logs.advance(this.#linked(), next);
      if (this.#logs.holds(next)) this.#keeper.worked();
      return { base: next, work: null };
    }
    this.#logs.forget(next);
    await this.#transact(planDropped(this.#settleGuest(), standing, next));
    return standing;
  }

  async #settleRound(standing: Standing, roundDisk: number, outcome: DeltaOutcome): Promise<Standing> {
    const parts = standing.work ?? 0;
    if (outcome === 'dropped') {
      await this.#transact(planRoundDropped(this.#settleGuest(), standing, roundDisk));
      return { base: standing.base, work: parts };
    }
    await this.#transact(planRoundAcknowledged(this.#settleGuest(), standing, roundDisk));
    return { base: standing.base, work: parts + 1 };
  }

  #settleGuest(): SettleGuest {
    return { groupId: this.#o.groupId, disks: this.#disks };
  }

  #context(): CopyContext {
    const { qmp, watch, owner } = this.#linked();
    const { clock, groupId } = this.#o;
    const capture = this;
    return {
      qmp, watch, owner, clock, groupId, spool: this.#spool, verifyDisks: () => this.#verifyDisks(), isStorageDaemon: this.#o.storageDaemonDisks !== undefined,
      get isVhdUsable() { return capture.#isVhdUsable; },
      set isVhdUsable(isUsable) { capture.#isVhdUsable = isUsable; },
    };
  }

  #name(disk: number, role: BitmapRole): string {
    return bitmapName(this.#o.groupId, disk, role);
  }

  async #transact(actions: readonly BitmapAction[]): Promise<void> {
    await this.#linked().qmp.execute('transaction', { actions });
  }
}
