/** The operator's own scripts around a failover: each at one step, with a time limit, told the facts as JSON on standard input. What a failed one means for the failover is said where it is run. */
import type { Logger } from 'pino';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import type { NotedGuest } from './group-guests.ts';
import { runCommand } from '../../host/node/run-command.ts';

/** `fence`: before an unplanned failover raises the term: it makes sure that the guests do not run any more where they ran. The others: around the guests' start here, and at the failover's end. */
export const hookSteps = ['fence', 'beforeStart', 'afterStart', 'afterCommit', 'afterRollBack'] as const;
export type HookStep = (typeof hookSteps)[number];

export interface Hook { readonly command: readonly string[]; readonly withinMs: number }
/** By group. */
export type Hooks = Readonly<Record<string, Readonly<Partial<Record<HookStep, Hook>>>>>;

export interface HookFacts {
  readonly for: 'failover' | 'test';
  readonly group: string;
  readonly groupId: string;
  readonly point: { readonly term: number; readonly point: number };
  readonly guests: readonly NotedGuest[];
  /** That the group enters, or has entered, by this failover. */
  readonly term?: number;
  readonly isPlanned?: boolean;
}

/** Resolves at once where none is configured. Fault HOOK_FAILED. */
export async function runHook(hooks: Hooks | undefined, step: HookStep, { point, guests, ...facts }: HookFacts, log: Logger): Promise<void> {
  const hook = hooks?.[facts.group]?.[step];
  if (hook === undefined) return;
  log.info({ group: facts.group, step, command: hook.command }, `the hook ${step} of ${facts.group} runs`);
  const why = await runCommand(hook.command, {
    limitMs: hook.withinMs,
    facts: { step, ...facts, point: formatPoint(point), guests: guests.map(({ name, qmpPath, logPath, pid }) => ({ name, qmp: qmpPath, serial: logPath, pid })) },
  });
  if (why !== null) throw new Fault('HOOK_FAILED', `the hook ${step} of ${facts.group} (${hook.command.join(' ')}): ${why}`, { group: facts.group, step });
}

/** Of a step that is done: a hook that fails does not undo it. Never rejects. */
export async function runHookAfter(...[hooks, step, facts, log]: Parameters<typeof runHook>): Promise<void> {
  try {
    await runHook(hooks, step, facts, log);
  } catch (error) {
    if (!isFault(error)) throw error;
    log.error({ group: facts.group, code: error.code, step }, error.message);
  }
}
