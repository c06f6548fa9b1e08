/**
 * What a failover would do, step by step, before it is done: pure, for people who want to know what they are about to ask for. The steps are those of failover.ts, in its order; the
 * times are those of the last rehearsal, for nothing else was measured.
 */
import { formatPoint } from '../../journal/point.ts';
import type { RestorePoint } from '../points/points.ts';
import type { GroupStoreReport } from '../store/store.ts';
import type { ManagedStart } from './managed-launch.ts';
import { startAtOnce, startStages, type GuestStart } from './readiness-plan.ts';
import type { RehearsalReport } from './rehearsal-report.ts';
import type { StartReport } from './start-finding.ts';

export interface RunbookFacts {
  readonly group: GroupStoreReport;
  /** What would be booted; null: there is no point. */
  readonly point: RestorePoint | null;
  readonly isPlanned: boolean;
  readonly isTesting: boolean;
  readonly guests: readonly string[];
  readonly starts: Readonly<Record<string, GuestStart>>;
  /** Guests that libvirt or Proxmox VE starts. */
  readonly managed: readonly ManagedStart[];
  /** The source of this host follows what is started here. */
  readonly isFollowed: boolean;
  readonly startCheck: StartReport | null;
  /** The last one. */
  readonly rehearsal: RehearsalReport | null;
  readonly atMs: number;
}

export interface RunbookStep {
  readonly step: string;
  /** As long as it took in the last rehearsal, ms; null: it was not measured. */
  readonly tookMs: number | null;
}

export interface Runbook {
  readonly group: string;
  readonly atMs: number;
  readonly isPlanned: boolean;
  readonly point: RestorePoint | null;
  /** At most, ms; null: there is nothing to boot. */
  readonly lostMs: number | null;
  readonly steps: readonly RunbookStep[];
  /** Why it could not be done now; empty: it could. */
  readonly obstacles: readonly string[];
  /** When the times were measured, and from which point; null: never. */
  readonly measured: { readonly atMs: number; readonly point: string; readonly isPassed: boolean } | null;
}

export function planRunbook(facts: RunbookFacts): Runbook {
  const { group, point, isPlanned, rehearsal, atMs } = facts;
  const isMeasured = rehearsal !== null && rehearsal.rtoMs !== null;
  return {
    group: group.name, atMs, isPlanned, point,
    lostMs: point === null ? null : isPlanned ? 0 : Math.max(0, atMs - point.cutAtMs),
    steps: point === null ? [] : steps(facts, point),
    obstacles: obstacles(facts),
    measured: isMeasured ? { atMs: rehearsal.startedAtMs, point: formatPoint(rehearsal.point), isPassed: rehearsal.isPassed } : null,
  };
}

function steps({ group, isPlanned, isTesting, guests, managed, starts, isFollowed, rehearsal }: RunbookFacts, point: RestorePoint): RunbookStep[] {
  const plain = (step: string): RunbookStep => ({ step, tookMs: null });
  const isNewest = point.term === group.newest?.term && point.point === group.newest.point;
  const stages = startStages(guests, starts);
  const measuredOf = (name: string): number | null => rehearsal?.guests.find((guest) => guest.name === name)?.readyMs ?? null;
  return [
    ...(isTesting ? [plain(`The test of ${group.name} that is under way is ended and removed.`)] : []),
    ...(isPlanned ? [
      plain('Its source presses the power button of its guests and waits until all are off; those that are not by the limit run on, and nothing was done.'),
      plain('What is left is sent as a final point.'),
    ] : []),
    ...(isNewest && group.applied !== null && formatPoint(group.applied) !== formatPoint(point) ? [plain(`What is sealed and not applied yet, behind ${formatPoint(group.applied)}, is applied.`)] : []),
    ...(isNewest || isPlanned ? [] : [plain(`Point ${formatPoint(point)} is held, and served to the guests while its data comes home behind them.`)]),
    plain(`The term is raised from ${group.term} to ${group.term + 1}, durably: from then on the old source is refused.`),
    plain('Images are made on top, for what the guests write here.'),
    ...launchSteps(guests, managed, rehearsal?.rtoMs ?? null),
    ...(isFollowed ? [plain('The source of this host follows what they write, from the first write on.')] : []),
    ...(isPlanned ? [plain('Its source notes durably that it let go of them.')] : []),
    ...stages.flatMap((names, at) => names.map((name): RunbookStep => {
      const { delayMs, ready } = starts[name] ?? startAtOnce;
      const checks = [...(ready?.agent === true ? ['its agent answers'] : []), ...(ready?.serial === undefined ? [] : [`it says /${ready.serial}/`]), ...(ready?.command === undefined ? [] : [`${ready.command.join(' ')} ends with 0`])];
      const after = [...(at > 0 ? ['when those before it are ready'] : []), ...(delayMs > 0 ? [`${delayMs / 1000} s later`] : [])].join(', ');
      return { step: `${name} runs${after === '' ? '' : ` ${after}`}${checks.length === 0 ? '' : `, and counts as ready when ${checks.join(' and ')}`}.`, tookMs: measuredOf(name) };
    })),
    ...(isPlanned ? [plain('The failover is committed, and what the guests write here are points of the group.')] : [plain('The failover waits for a decision: afterimage commit, or afterimage failover-stop --roll-back.')]),
  ];
}

/** Those that are ours to start, then each that is its manager's, with what it loses on the way. */
function launchSteps(guests: readonly string[], managed: readonly ManagedStart[], tookMs: number | null): RunbookStep[] {
  const ours = guests.filter((name) => !managed.some(({ guest }) => guest === name));
  return [
    ...(ours.length === 0 ? [] : [{ step: `QEMU is started for ${ours.join(', ')}, with the hardware that was recorded.`, tookMs }]),
    ...managed.map(({ guest, as, notes }, at): RunbookStep => ({
      step: `${guest} is defined and started as ${as}, from its own definition.${notes.map((note) => ` ${note}`).join('')}`, tookMs: ours.length === 0 && at === 0 ? tookMs : null,
    })),
  ];
}

function obstacles({ group, point, isPlanned, startCheck }: RunbookFacts): string[] {
  return [
    ...(point === null ? ['there is no point to boot'] : []),
    ...(group.state === 'protected' ? [] : [`${group.name} has failed over already: it is ${group.state === 'committed' ? 'at home here' : 'not decided yet'}`]),
    ...(group.held === null ? [] : [`the group is held: ${group.held.message}`]),
    ...(startCheck?.findings ?? []).flatMap(({ check, verdict, found }) => (verdict === 'refused' ? [`${check}: ${found}${isPlanned ? '' : ' (an unplanned failover is tried all the same)'}`] : [])),
  ];
}
