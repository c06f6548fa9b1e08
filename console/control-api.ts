/**
 * What requests to the operator's API hold, and their limits, for both ends; api/target-routes.ts and api/source-routes.ts say on
 * which paths. Bodies are checked here for shape; what they mean is the role's to judge.
 */
import { z } from 'zod';
import type { CaptureChoice } from '../daemon/capture/capture.ts';
import { groupGuestsMax, labelCharactersMax, lockMsMax } from '../journal/limits.ts';
import { safeName } from '../journal/wire.ts';
import { parsePlace } from '../qemu/guest-place.ts';
import { networkName } from '../replica-target/failover/network-plan.ts';
import type { NetworkChoice } from '../replica-target/operations.ts';

/** A request is a few paths and names. */
export const bodyBytesMax = 64 * 1024;

const name = safeName;
const path = z.string().min(1).max(4096).startsWith('/', 'not an absolute path').regex(/^[^\0]*$/, 'a zero byte in a path');
/** Where a guest's QEMU is found. */
const place = z.string().min(1).max(4096).regex(/^[^\0]*$/, 'a zero byte in a path').refine((text) => parsePlace(text) !== undefined, 'neither an absolute path nor libvirt://DOMAIN nor pve://VMID');
const rate = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
/** With a write log, 100 ms to 1 h; the daemon refuses what the chosen capture cannot do. */
export const rpoMsMin = 100;
export const captureChoices = ['cbt', 'writelog', 'auto'] as const satisfies readonly CaptureChoice[];
export const rpoMsMax = 3_600_000;
/** For people, in one line. */
export const pointLabel = z.string().min(1).max(labelCharactersMax).regex(/^\P{Cc}*$/u, 'a control character in a label');
/** How long `mark` may wait. */
export const markMsMax = 3_600_000;

/** A test that nobody ends keeps its point and takes memory: a day is a long test. */
export const testLimitMsMax = 86_400_000;

/** A point as people name it. Labels are the longest. */
export const selector = z.string().min(1).max(255);
const accel = z.enum(['kvm', 'tcg', 'auto']).optional();

/** A hold for longer than a month is one until it is released. */
export const holdMsMax = 31 * 86_400_000;


/** A guest that takes longer to shut down than an hour is not shutting down. */
export const shutdownMsMax = 3_600_000;
/** A failover that nobody decides on for longer than a month is decided. */
export const decisionMsMax = 31 * 86_400_000;

/** A secret that admits to a target is not to lie about for long. */
export const invitationMsMin = 10_000;
export const invitationMsMax = 7 * 86_400_000;

const groupId = z.string().regex(/^[0-9a-f]{32}$/);
/** The guests of a group of several. */
const members = z.array(z.strictObject({ name, qmpPath: place })).min(2).max(groupGuestsMax);
const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const term = count.min(1);

export const failoverNetwork = networkName.transform((choice, context): NetworkChoice => {
  if (choice !== 'isolated') return choice;
  context.addIssue({ code: 'custom', message: 'a failover on a network that leads nowhere' });
  return z.NEVER;
});

export const requestBodies = {
  verify: z.strictObject({ group: name, at: selector.optional() }),
  pair: z.strictObject({ token: z.string().min(1).max(4096) }),
  protect: z.strictObject({
    name, qmpPath: place, dmLogPath: path.optional(), rpoMs: z.number().int().min(rpoMsMin).max(rpoMsMax), capture: z.enum(captureChoices).optional(), target: name.optional(), rateBytesPerSecond: rate.optional(),
    members: members.optional(), isPaused: z.boolean().optional(), storageDaemonDisks: z.array(z.string().min(1).max(255)).min(1).max(256).optional(),
  }),
  unprotect: z.strictObject({ name, isForgotten: z.boolean().optional() }),
  adopt: z.strictObject({
    name, groupId, qmpPath: place, members: members.optional(), base: z.strictObject({ term, point: count }).nullable(), term, rpoMs: z.number().int().min(rpoMsMin).max(rpoMsMax),
    target: z.strictObject({ name, fingerprint: z.string().min(1).max(200) }).nullable(), points: z.strictObject({ nbdPath: path, controlPath: path }).nullable(), token: z.string().min(1).max(4096).nullable(),
  }),
  abandon: z.strictObject({ groupId }),
  surrender: z.strictObject({ groupId, term }),
  guest: z.strictObject({ name }),
  mark: z.strictObject({ name, isApp: z.boolean().optional(), label: pointLabel.optional(), limitMs: z.number().int().min(1000).max(markMsMax).optional() }),
  qmpPath: z.strictObject({ name, qmpPath: place }),
  rate: z.strictObject({ name, rateBytesPerSecond: rate }),
  capture: z.strictObject({ name, capture: z.enum(captureChoices) }),
  startCheck: z.strictObject({ group: name, accel, network: failoverNetwork.optional() }),
  failover: z.strictObject({
    group: name, at: selector.optional(), accel, network: failoverNetwork.optional(), isWitnessed: z.boolean().optional(),
    planned: z.strictObject({ shutdownMs: z.number().int().min(1000).max(shutdownMsMax), onLimit: z.enum(['stop', 'give-up']) }).optional(),
    decision: z.strictObject({ act: z.enum(['commit', 'roll-back']), afterMs: z.number().int().nonnegative().max(decisionMsMax) }).optional(),
  }),
  commit: z.strictObject({ group: name }),
  changes: z.strictObject({ groupId, since: z.strictObject({ term, point: count }), point: z.strictObject({ term, point: count }) }),
  testFailover: z.strictObject({
    group: name, at: selector.optional(), limitMs: z.number().int().min(1000).max(testLimitMsMax).optional(), budgetBytes: rate.optional(), network: networkName.optional(), accel,
  }),
  dismiss: z.strictObject({ group: name }),
  plan: z.strictObject({ group: name, at: selector.optional(), isPlanned: z.boolean().optional() }),
  rehearse: z.strictObject({ group: name, at: selector.optional(), network: networkName.optional(), accel, isKept: z.boolean().optional() }),
  testStop: z.strictObject({ group: name }),
  failoverStop: z.strictObject({ group: name, isRolledBack: z.boolean().optional() }),
  seedFrom: z.strictObject({ group: name, disk: z.number().int().min(0).max(65_535), imagePath: path }),
  holdPoint: z.strictObject({ group: name, at: selector, reason: z.string().min(1).max(200), forMs: z.number().int().min(1000).max(holdMsMax).nullable() }),
  /** Exactly one of `forMs` and `untilMs`. */
  lockPoint: z.strictObject({
    group: name, at: selector, reason: z.string().min(1).max(200), forMs: z.number().int().min(1000).max(lockMsMax).optional(), untilMs: count.optional(),
  }),
  forget: z.strictObject({ group: name }),
  releasePoint: z.strictObject({ group: name, holdId: z.string().min(1).max(100) }),
  invite: z.strictObject({ forMs: z.number().int().min(invitationMsMin).max(invitationMsMax).optional(), name: name.optional() }),
  revoke: z.strictObject({ which: z.string().min(1).max(100) }),
  rotate: z.strictObject({ isNow: z.boolean().optional() }),
} as const;
