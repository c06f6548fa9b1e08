/**
 * The one place where what people do gets into the audit trail: a role's operations with each administrative act noted, done or refused, under whoever asked. Whatever faces people (the
 * control socket, the API) takes the operations through here. Reading is not noted. What is noted of an act is picked member by member, so that no secret comes along.
 */
import type { Actor } from '../host/audit-format.ts';
import type { AuditNoter } from '../host/audit-trail.ts';
import type { SourceOperations } from '../daemon/operations.ts';
import { isFault } from '../journal/fault.ts';
import type { TargetOperations } from '../replica-target/operations.ts';

type Operation = (...args: never[]) => unknown;
type Args<F> = F extends (...args: infer A) => unknown ? A : never;

interface Act<F> {
  readonly act: string;
  readonly on: (...args: Args<F>) => string | null;
  readonly what?: (...args: Args<F>) => Readonly<Record<string, unknown>>;
  /** Noted when it begins, too: a daemon that dies in the middle of it leaves that. */
  readonly isLong?: true;
}

export type Acts<T> = { readonly [K in keyof T]?: T[K] extends Operation ? Act<T[K]> : never };

export const targetActs: Acts<TargetOperations> = {
  invite: { act: 'invite', on: ({ name }) => name ?? null, what: ({ forMs }) => ({ forMs }) },
  revoke: { act: 'revoke', on: (which) => which },
  revokeOldSecrets: { act: 'revoke-old-secrets', on: () => null },
  rotate: { act: 'rotate', on: () => null, what: (isNow) => ({ isNow }) },
  holdPoint: { act: 'hold', on: ({ group }) => group, what: ({ at, reason, forMs }) => ({ at, reason, forMs }) },
  lockPoint: { act: 'lock', on: ({ group }) => group, what: ({ at, reason, forMs, untilMs }) => ({ at, reason, forMs, untilMs }) },
  releasePoint: { act: 'release', on: (group) => group, what: (_group, holdId) => ({ holdId }) },
  dismiss: { act: 'dismiss', on: (group) => group },
  forget: { act: 'forget', on: (group) => group, isLong: true },
  failover: {
    act: 'failover', on: ({ group }) => group, isLong: true,
    what: ({ at, planned, decision, isWitnessed, network, accel }) => ({ at, isPlanned: planned !== undefined, decision, isWitnessed, network, accel }),
  },
  stopFailover: { act: 'failover-stop', on: (group) => group, what: (_group, isRolledBack) => ({ isRolledBack }), isLong: true },
  commitFailover: { act: 'commit', on: (group) => group },
  testFailover: { act: 'test', on: ({ group }) => group, what: ({ at, network, limitMs }) => ({ at, network, limitMs }) },
  stopTest: { act: 'test-stop', on: (group) => group },
  rehearse: { act: 'rehearse', on: ({ group }) => group, what: ({ at, network }) => ({ at, network }) },
  seedFrom: { act: 'seed-from', on: (group) => group, what: (_group, disk, imagePath) => ({ disk, imagePath }), isLong: true },
};

export const sourceActs: Acts<SourceOperations> = {
  pair: { act: 'pair', on: () => null },
  revoke: { act: 'revoke', on: (which) => which },
  rotate: { act: 'rotate', on: () => null, what: (isNow) => ({ isNow }) },
  protect: {
    act: 'protect', on: ({ name }) => name, isLong: true,
    what: ({ qmpPath, members, rpoMs, capture, target, rateBytesPerSecond, isPaused }) => ({ qmpPath, members: members?.map(({ name }) => name), rpoMs, capture, target, rateBytesPerSecond, isPaused }),
  },
  adopt: { act: 'adopt', on: ({ name }) => name, what: ({ groupId, term }) => ({ groupId, term }) },
  surrender: { act: 'surrender', on: (groupId) => groupId, what: (_groupId, term) => ({ term }) },
  abandon: { act: 'abandon', on: (groupId) => groupId },
  unprotect: { act: 'unprotect', on: (name) => name, what: (_name, isForgotten) => ({ isForgotten }), isLong: true },
  pause: { act: 'pause', on: (name) => name },
  resume: { act: 'resume', on: (name) => name },
  resync: { act: 'resync', on: (name) => name },
  mark: { act: 'mark', on: ({ name }) => name, what: ({ isApp, label }) => ({ isApp, label }) },
  setCapture: { act: 'capture', on: (name) => name, what: (_name, capture) => ({ capture }) },
  setQmpPath: { act: 'qmp-path', on: (name) => name, what: (_name, qmpPath) => ({ qmpPath }) },
  setRate: { act: 'rate', on: (name) => name, what: (_name, rateBytesPerSecond) => ({ rateBytesPerSecond }) },
};

/** `actorOf` is asked when an operation is called. Operations that are no acts are passed through. */
export function audited<T extends object>(operations: T, acts: Acts<T>, audit: AuditNoter, actorOf: () => Actor): T {
  return new Proxy(operations, {
    get(target, key) {
      const member: unknown = Reflect.get(target, key, target);
      if (typeof member !== 'function') return member;
      const operation = member.bind(target) as (...args: unknown[]) => unknown;
      const act = Object.hasOwn(acts, key) ? acts[key as keyof T] as Act<Operation> | undefined : undefined;
      return act === undefined ? operation : (...args: unknown[]) => perform(act, operation, args, audit, actorOf());
    },
  });
}

async function perform({ act, on, what, isLong }: Act<Operation>, operation: (...args: unknown[]) => unknown, args: unknown[], audit: AuditNoter, who: Actor): Promise<unknown> {
  const entry = { who, act, on: on(...args as never[]), what: what?.(...args as never[]) ?? {} };
  if (isLong === true) await audit.note({ ...entry, outcome: 'begun' });
  try {
    const result = await operation(...args);
    await audit.note({ ...entry, outcome: 'done' });
    return result;
  } catch (error) {
    await audit.note({ ...entry, outcome: isFault(error) ? error.code : 'INTERNAL' });
    throw error;
  }
}
