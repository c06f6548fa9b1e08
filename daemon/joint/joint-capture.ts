/**
 * The capture of a group of several guests, made of one capture for each: their disks are numbered one guest after the other, their deltas are one delta, and a point is
 * cut on all of them or on none (joint-instant.ts). It speaks to no QEMU itself.
 *
 * Invariant: a point's delta holds a cut of every guest, of the same attempt. Whatever one guest's cut comes to, if it is not that point, the others' are dropped.
 */
import assert from 'node:assert/strict';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { controlBytesMax } from '../../journal/limits.ts';
import type { PointId, PointKind } from '../../journal/point.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import type { Capture, CaptureChoice, CapturedDelta, CapturedDisk, CapturedGuest, CaptureFigures, CaptureStanding, CutHold, FullPassOptions, FullPassSink, GuestPower } from '../capture/capture.ts';
import type { PauseGuard } from './pause-guard.ts';
import { JointDelta } from './joint-delta.ts';
import { JointInstant } from './joint-instant.ts';
import { allOf, jointPower } from './joint-power.ts';
import type { PausedGuest } from './paused-notes.ts';

/** One guest of the group. */
export interface JointMember {
  readonly name: string;
  readonly qmpPath: string;
  readonly capture: Capture;
}

/** `strict`: all guests are stopped around the cut. `per-guest`: each is cut by itself, all as close together as QMP allows. */
export type Consistency = 'strict' | 'per-guest';

export interface JointCaptureOptions {
  /** In the order in which their disks are numbered. */
  readonly members: readonly JointMember[];
  readonly consistency: Consistency;
  /** How long the guests may be stopped for a cut, ms. */
  readonly pauseMsMax: number;
  readonly guard: PauseGuard;
  readonly clock: Clock;
  /** Which disks of which guest had which number when what the target holds was last known to be theirs; null: that was never so. */
  readonly layout: JointLayout | null;
  /** Durable when it resolves. */
  noteLayout(layout: JointLayout): Promise<void>;
}

/** The names of each guest's disks, in the order of their numbers. */
export type JointLayout = readonly { readonly guest: string; readonly disks: readonly string[] }[];

const mib = 1024 * 1024;
const heldBytesAtFirst = 128 * mib;
const heldBytesMin = 16 * mib;
const heldBytesMost = 512 * mib;

/** What the announcement has beside the hardware is small. */
const hardwareBytesMax = controlBytesMax - 256 * 1024;

export class JointCapture implements Capture {
  readonly #o: JointCaptureOptions;
  /** Of each guest, the group's number of its first disk. */
  #firsts: readonly number[] = [];
  #layout: JointLayout | null;
  /** Guests that the next pass is for; null: all. */
  #lagging: ReadonlySet<number> | null = null;
  #passed: readonly JointMember[] = [];
  /** What is copied of a guest while all are paused: so much that the limit is kept. */
  #heldBytesMax = heldBytesAtFirst;
  #figures = { cycles: 0, droppedCycles: 0, rounds: 0 };

  constructor(options: JointCaptureOptions) {
    this.#o = options;
    this.#layout = options.layout;
  }

  get members(): readonly JointMember[] { return this.#o.members; }

  async connect(): Promise<CapturedGuest> {
    const { members } = this.#o;
    try {
      const left = await this.#o.guard.left();
      // Each as soon as it can be reached, whether the others can or not.
      const guests = await this.#each(async (member) => {
        const guest = await member.capture.connect();
        await goOnIfLeft(member, left);
        return guest;
      });
      if (left.length > 0) await this.#o.guard.gone();
      const hardware = { guests: members.map(({ name }, at) => ({ name, disks: guests[at]!.disks.length, hardware: guests[at]!.hardware })) };
      const bytes = JSON.stringify(hardware).length;
      if (bytes > hardwareBytesMax) throw new Fault('GUEST_UNSUITED', `the hardware of all guests of the group takes ${bytes} bytes, more than a target takes (${hardwareBytesMax})`, { bytes });
      return { disks: this.disks(), hardware };
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  closed(): Promise<Fault> {
    return Promise.race(this.#o.members.map(async ({ name, capture }) => named(name, await capture.closed())));
  }

  disks(): readonly CapturedDisk[] {
    const disks: CapturedDisk[] = [];
    this.#firsts = this.#o.members.map(({ name, capture }) => {
      const first = disks.length;
      for (const { name: disk, sizeBytes } of capture.disks()) disks.push({ disk: disks.length, name: `${name}/${disk}`, sizeBytes });
      return first;
    });
    return disks;
  }

  async measureDirtyBytes(): Promise<number> {
    return sum(await this.#each(({ capture }) => capture.measureDirtyBytes()));
  }

  /** Rounds are taken again: how many parts of a delta are whose is not known any more. */
  async reconcile(held: PointId | null): Promise<CaptureStanding> {
    const standings = await this.#each(({ capture }) => capture.reconcile(held, 0));
    const moved = movedGuests(this.#layout, this.#layoutNow());
    const whys = standings.flatMap((one, at) => {
      const { name } = this.#o.members[at]!;
      if (one.standing === 'resync') return [{ at, why: `${name}: ${one.why}` }];
      // Its own bitmaps say nothing of that.
      return moved.has(name) ? [{ at, why: `${name}: its disks have other numbers in the group than they had` }] : [];
    });
    this.#lagging = whys.length === 0 ? null : new Set(whys.map(({ at }) => at));
    return whys.length === 0 ? { standing: 'ready' } : { standing: 'resync', why: whys.map(({ why }) => why).join('; ') };
  }

  async cut(base: PointId, next: PointId, kind: PointKind, hold?: CutHold): Promise<CapturedDelta> {
    const { members, consistency, pauseMsMax, guard, clock } = this.#o;
    // One that could not be told to go on is told again before any is paused anew.
    if (guard.hasLeft) {
      const left = await guard.left();
      await this.#each((member) => goOnIfLeft(member, left));
      await guard.gone();
    }
    const instant = new JointInstant({ members, consistency, pauseMsMax, heldBytesMax: this.#heldBytesMax, guard, clock, hold });
    const cuts = await Promise.allSettled(members.map(async ({ capture }, at) => {
      try {
        return await capture.cut(base, next, kind, instant.holdOf(at));
      } finally {
        instant.settled(at);
      }
    }));
    await instant.over();
    const deltas = cuts.flatMap((cut, at) => (cut.status === 'fulfilled' ? [{ at, delta: cut.value }] : []));
    const reasons = cuts.flatMap((cut, at) => (cut.status === 'rejected' ? [this.#named(at, cut.reason)] : []));
    // Those that gave up for another's sake say so, and not why.
    const failed = instant.fault ?? reasons.find((reason) => !isFault(reason, 'CUT_PAUSED')) ?? null;
    this.#heldBytesMax = instant.isLate ? Math.max(heldBytesMin, this.#heldBytesMax / 2) : Math.min(heldBytesMost, this.#heldBytesMax * 1.1);
    this.disks();
    // One guest's part of an unsealed delta is as good alone.
    const round = failed === null ? deltas.find(({ delta }) => delta.isRound) : undefined;
    assert(failed !== null || round !== undefined || deltas.length === members.length, 'a point is cut of all guests');
    const isWhole = failed === null && round === undefined;
    await allOf(deltas.filter((one) => !isWhole && one !== round).map(({ delta }) => delta.end('dropped')));
    if (failed !== null) {
      this.#figures.droppedCycles += 1;
      return Promise.reject(failed as Error);
    }
    if (round !== undefined) this.#figures.rounds += 1;
    else this.#figures.cycles += 1;
    return new JointDelta({
      parts: (round === undefined ? deltas : [round]).map(({ at, delta }) => ({ first: this.#firsts[at]!, delta })),
      sizes: this.disks(), kind: round === undefined ? instant.kind ?? kind : kind, isRound: round !== undefined, about: round === undefined ? instant.facts : {},
    });
  }

  /** One guest after the other, and only those that need it, if it is not all. */
  async fullPass(sink: FullPassSink, options: FullPassOptions): Promise<void> {
    const passed = this.#o.members.filter((_, at) => this.#lagging?.has(at) ?? true);
    const bytesOf = (members: readonly JointMember[]): number => sum(members.flatMap(({ capture }) => capture.disks().map(({ sizeBytes }) => sizeBytes)));
    const totalBytes = bytesOf(passed);
    this.#passed = [];
    for (const [done, member] of passed.entries()) {
      const first = this.#firsts[this.#o.members.indexOf(member)]!;
      const doneBefore = bytesOf(passed.slice(0, done));
      await member.capture.fullPass({
        ...(sink.buffers === undefined ? {} : { buffers: sink.buffers }),
        write: (disk, offset, buffer, headroomBytes) => sink.write(first + disk, offset, buffer, headroomBytes),
        zero: (disk, offset, length) => sink.zero(first + disk, offset, length),
      }, { ...options, onProgress: ({ doneBytes }) => options.onProgress({ doneBytes: doneBefore + doneBytes, totalBytes }) }).catch((error: unknown) => { throw this.#named(this.#o.members.indexOf(member), error); });
    }
    this.#passed = passed;
  }

  async settlePass(base: PointId): Promise<void> {
    const passed = this.#passed;
    this.#passed = [];
    await allOf(passed.map(({ capture }) => capture.settlePass(base)));
    await this.#keepLayout();
    this.#lagging = null;
  }

  async pausePass(isPaused: boolean): Promise<void> {
    await this.#each(({ capture }) => capture.pausePass(isPaused));
  }

  figures(): CaptureFigures {
    const all = this.#o.members.map(({ capture }) => capture.figures());
    return {
      ...this.#figures, capture: 'cbt', captureWhy: this.#o.consistency === 'strict' ? 'several guests, cut at one instant' : 'several guests, each cut by itself', logCuts: 0,
      logBytes: sum(all.map(({ logBytes }) => logBytes)), dirtyBytes: sum(all.map(({ dirtyBytes }) => dirtyBytes)), spoolBytes: sum(all.map(({ spoolBytes }) => spoolBytes)),
      // The budget is that of all guests together.
      spoolBudgetBytes: all[0]!.spoolBudgetBytes, inPathMs: Math.max(...all.map(({ inPathMs }) => inPathMs)), cutMs: Math.max(...all.map(({ cutMs }) => cutMs)),
    };
  }

  async begin(base: PointId): Promise<void> {
    await this.#each(({ capture }) => capture.begin(base));
    await this.#keepLayout();
  }

  power(): GuestPower {
    this.disks();
    return jointPower(this.#o.members.map(({ capture }, at) => ({ power: capture.power(), first: this.#firsts[at]! })));
  }

  agentChannel(): Promise<AgentChannel> {
    return Promise.reject(new Fault('AGENT_NONE', 'each guest of the group has an agent of its own', {}));
  }

  /** A log is cut together with nothing but other logs of its guest. */
  choose(_capture: CaptureChoice): void {
    for (const { capture } of this.#o.members) capture.choose('cbt');
  }

  async rest(): Promise<void> {
    await this.#each(({ capture }) => capture.rest());
  }

  async park(): Promise<void> {
    await this.#each(({ capture }) => capture.park());
  }

  async release(): Promise<void> {
    await this.#each(({ capture }) => capture.release());
  }

  async close(): Promise<void> {
    await this.#each(({ capture }) => capture.close());
  }

  #layoutNow(): JointLayout {
    return this.#o.members.map(({ name, capture }) => ({ guest: name, disks: capture.disks().map((disk) => disk.name) }));
  }

  async #keepLayout(): Promise<void> {
    const layout = this.#layoutNow();
    if (JSON.stringify(layout) === JSON.stringify(this.#layout)) return;
    await this.#o.noteLayout(layout);
    this.#layout = layout;
  }

  #each<T>(act: (member: JointMember) => Promise<T>): Promise<T[]> {
    return allOf(this.#o.members.map((member, at) => act(member).catch((error: unknown) => { throw this.#named(at, error); })));
  }

  #named(at: number, error: unknown): unknown {
    return isFault(error) ? named(this.#o.members[at]!.name, error) : error;
  }
}

/** A guest whose connection was lost while it was paused, or that could not be told to go on. */
async function goOnIfLeft({ name, capture }: JointMember, left: readonly PausedGuest[]): Promise<void> {
  if (left.some((one) => one.name === name) && (await capture.power().runState()).status === 'paused') await capture.power().goOn();
}

/** Guests whose disks do not have the numbers that they had: another guest before them gained or lost one, or they did themselves. Without a layout, all. Pure. */
export function movedGuests(was: JointLayout | null, is: JointLayout): ReadonlySet<string> {
  const placesOf = (layout: JointLayout): Map<string, string> => {
    let first = 0;
    return new Map(layout.map(({ guest, disks }) => {
      const place = JSON.stringify([first, disks]);
      first += disks.length;
      return [guest, place];
    }));
  };
  const before = placesOf(was ?? []);
  return new Set([...placesOf(is)].flatMap(([guest, place]) => (before.get(guest) === place ? [] : [guest])));
}

/** Which guest of the group it is about. */
function named(name: string, fault: Fault): Fault {
  return new Fault(fault.code, `${name}: ${fault.message}`, { ...fault.facts, guest: name }, fault);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
