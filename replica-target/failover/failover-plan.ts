/**
 * What a group may do next, as pure decisions: which step its phase allows, which point a failover boots, how much a test may
 * write, and when a test is over. It starts nothing and knows no files.
 *
 *     protected ──test──> testing ──end-test, limit, budget──> protected
 *     protected, testing ──fail-over──> failed-over ──roll-back──> protected
 *     failed-over ──stop──> failed-over (its guest does not run) ──fail-over──> failed-over (the same point, the same overlays)
 *     failed-over ──commit──> committed, when the guest's images stand alone; from then on its changes are deltas of the group
 *
 * A test changes nothing of the group: its term stays, deltas are taken, points are sealed. A failover ends a test that is
 * under way: an emergency does not wait for an exercise.
 */
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { GroupState } from '../store/store.ts';

export type GroupPhase = 'protected' | 'testing' | 'failed-over' | 'committed';
export type FailoverStep = 'fail-over' | 'plan' | 'commit' | 'stop' | 'roll-back' | 'test' | 'end-test';

export interface GroupFacts {
  readonly name: string;
  readonly state: GroupState;
  /** A test is noted, whether its guest runs or not. */
  readonly isTesting: boolean;
  /** The guest that a failover started, while it runs. */
  readonly failedOverPid: number | null;
}

export type Ruling = { readonly may: true; readonly endsTest: boolean } | { readonly may: false; readonly why: string };

export function phaseOf({ state, isTesting }: Pick<GroupFacts, 'state' | 'isTesting'>): GroupPhase {
  if (state === 'failed-over') return 'failed-over';
  if (state === 'committed' && !isTesting) return 'committed';
  return isTesting ? 'testing' : 'protected';
}

export function rule(facts: GroupFacts, step: FailoverStep): Ruling {
  const { name, failedOverPid } = facts;
  const phase = phaseOf(facts);
  switch (step) {
    case 'fail-over':
      if (facts.state !== 'protected' && failedOverPid !== null) return refused(`${name} has failed over already and runs here (pid ${failedOverPid})`);
      return { may: true, endsTest: facts.isTesting };
    case 'plan':
      return facts.state === 'protected' ? { may: true, endsTest: facts.isTesting } : refused(`${name} has failed over: its source has nothing to hand over`);
    case 'commit':
      if (facts.state === 'committed') return refused(`the failover of ${name} is committed already`);
      if (facts.state !== 'failed-over') return refused(`${name} has not failed over`);
      return failedOverPid === null ? refused(`${name} does not run here: start it (\`afterimage failover\`) before its data can be brought home`) : allowed;
    case 'stop':
      return facts.state === 'protected' ? refused(`${name} has not failed over`) : allowed;
    case 'roll-back':
      if (facts.state === 'committed') return refused(`the failover of ${name} is committed: there is nothing to go back to, but a planned failover the other way round`);
      return facts.state === 'failed-over' ? allowed : refused(`${name} has not failed over`);
    case 'test':
      if (phase === 'testing') return refused(`a test of ${name} is under way: end it with --stop`);
      return phase === 'failed-over' ? refused(`${name} has failed over: what runs here is no test`) : allowed;
    case 'end-test':
      return facts.isTesting ? allowed : refused(`no test of ${name} is under way`);
    default: return step satisfies never;
  }
}

const allowed: Ruling = { may: true, endsTest: false };

function refused(why: string): Ruling {
  return { may: false, why };
}

/** A guest that was started before goes on where it was: another point would throw away what it wrote since. */
export function refuseOtherPoint(name: string, booted: PointId, asked: PointId | null): string | null {
  if (asked === null || (asked.term === booted.term && asked.point === booted.point)) return null;
  return `${name} has failed over to point ${formatPoint(booted)}, and what it wrote since lies on top of that: roll back before another point is booted`;
}

/** Below this hardly a guest boots. */
export const testBudgetBytesMin = 64 * 1024 ** 2;
/** Of what can be spared, unless told otherwise. */
const sparedFraction = 0.25;

export interface TestSpace {
  /** Null: as this file sees fit. */
  readonly askedBytes: number | null;
  readonly freeBytes: number;
  /** What replication must find free. */
  readonly neededBytes: number;
  readonly disksBytes: number;
}

/** How much a test's guest may write in all. */
export function testBudget({ askedBytes, freeBytes, neededBytes, disksBytes }: TestSpace): { readonly budgetBytes: number } | { readonly sparedBytes: number } {
  const sparedBytes = Math.max(0, freeBytes - neededBytes);
  // Whole blocks of a qcow2 image; a guest cannot change more than its disks, and the image's own tables are small.
  const wantedBytes = askedBytes ?? Math.min(sparedBytes * sparedFraction, disksBytes * 1.02 + testBudgetBytesMin);
  const budgetBytes = Math.floor(wantedBytes / 65_536) * 65_536;
  return budgetBytes < testBudgetBytesMin || budgetBytes > sparedBytes ? { sparedBytes } : { budgetBytes };
}

/** Why a test ended. `interrupted`: the target was killed before its guest ran. */
export type TestEnd = 'asked' | 'limit' | 'budget' | 'space' | 'guest-ended' | 'failover' | 'interrupted';

export interface TestLook {
  readonly nowMs: number;
  readonly endsAtMs: number;
  readonly isRunning: boolean;
  /** QEMU's run state; null when it did not say. */
  readonly runState: string | null;
  readonly usedBytes: number;
  readonly budgetBytes: number;
  readonly freeBytes: number;
  readonly neededBytes: number;
}

/** A guest that was stopped by an error this near to its budget was stopped by it: images grow by clusters and tables. */
const nearBytes = 4 * 1024 ** 2;

export function whyTestEnds(look: TestLook): TestEnd | null {
  if (!look.isRunning) return 'guest-ended';
  if (look.nowMs >= look.endsAtMs) return 'limit';
  if (look.freeBytes < look.neededBytes) return 'space';
  if (look.usedBytes > look.budgetBytes) return 'budget';
  if (look.runState === 'io-error' && look.usedBytes > look.budgetBytes - nearBytes) return 'budget';
  return null;
}

/** Of a planned failover. */
export function refuseRollBack(name: string, state: 'asked' | 'taken'): string {
  return state === 'taken' ? `${name} was handed over by its source, which keeps nothing to go back to: fail back by a planned failover the other way round`
    : `whether the source of ${name} let go of it is not known: once it is back it runs in one place or the other by itself. \`afterimage failover\` runs it here now`;
}
