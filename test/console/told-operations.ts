/** Roles that do nothing and say what they were asked: for tests of the API, which only passes on. */
import type { SourceOperations } from '../../daemon/operations.ts';
import type { FailoverResult, TargetOperations, TestResult } from '../../replica-target/operations.ts';
import { described, points, startChecked, sourceUp, targetUp, timeline } from './fixed-reports.ts';

export const certificate = { fingerprint: 'ab', expiresAtMs: 9, next: null, awaited: [] };

/** `calls` is told what arrives. */
export function sourceOperations(calls: unknown[][]): SourceOperations {
  const told = async (...call: unknown[]): Promise<void> => { calls.push(call); };
  return {
    report: () => sourceUp,
    pair: async (token) => { await told('pair', token); return { name: 'bravo', address: 'bravo:7228', fingerprint: 'ab' }; },
    pairings: () => ({ certificate, targets: [] }),
    revoke: async (which) => { await told('revoke', which); return { name: which }; },
    rotate: async (isNow) => { await told('rotate', isNow); return certificate; },
    protect: async (request) => { await told('protect', request); return { name: request.name, groupId: '00', target: 'bravo' }; },
    adopt: (...all) => told('adopt', ...all),
    surrender: () => Promise.resolve(null),
    abandon: (...all) => told('abandon', ...all),
    unprotect: (...all) => told('unprotect', ...all),
    pause: (...all) => told('pause', ...all),
    resync: (...all) => told('resync', ...all),
    resume: (...all) => told('resume', ...all),
    setCapture: (...all) => told('setCapture', ...all),
    setQmpPath: (...all) => told('setQmpPath', ...all),
    setRate: (...all) => told('setRate', ...all),
    mark: async (request) => {
      await told('mark', request);
      return { term: 1, point: 13, kind: 'app', cutAtMs: 5, isAppWanted: true, reason: null, frozenMs: 40, label: request.label };
    },
  };
}

export const failedOver: FailoverResult = { group: 'web', term: 2, point: points[2]!, lostMs: 10_000, rtoMs: 2500, guests: [{ name: 'web', qmpPath: '/q', pid: 7, logPath: '/l' }], qmpPath: '/q', pid: 7, logPath: '/l', overlayPaths: ['/o'], accel: 'tcg', isComingHome: true };
export const tested: TestResult = { group: 'web', point: points[1]!, rtoMs: 1500, ageMs: 15_000, endsAtMs: 9, budgetBytes: 1 << 30, guests: [{ name: 'web', qmpPath: '/q', pid: 8, logPath: '/l' }], qmpPath: '/q', pid: 8, logPath: '/l', accel: 'tcg', network: 'none' };

const rehearsed = {
  group: 'web', groupId: 'ab', point: { term: 1, point: 3, kind: 'crash', cutAtMs: 1 }, startedAtMs: 2, endedAtMs: 3, by: 'person', version: '0', isPassed: true, why: '', rtoMs: 4, readyMs: 5, accel: 'tcg', network: 'none', guests: [], folder: '/r',
} as const satisfies Awaited<ReturnType<TargetOperations['rehearse']>>;

export const verified = { startedAtMs: 1, endedAtMs: 2, journalBytes: 3, historyBytes: 4, replicaBytes: 5, replicaComparedBytes: 0, read: null, findings: [], findingsLeftOff: 0, points: { count: 3, goodCount: 3, newestGood: '1.3' } };

/** `calls` is told what arrives. */
const shown = { name: 'web', screenPng: null, screenWhy: 'the guest has no display', serial: 'login: ' };
const dismissed: Awaited<ReturnType<TargetOperations['dismiss']>> = { kind: 'turned', first: { term: 1, point: 7 }, before: { term: 1, point: 6 }, bytes: 9, changedBytes: 10, sinceMs: 1, holdIds: [], dismissedAtMs: 2, again: null };

export function targetOperations(calls: unknown[][], more: Partial<TargetOperations> = {}): TargetOperations {
  const told = async (...call: unknown[]): Promise<void> => { calls.push(call); };
  return {
    report: () => targetUp,
    points: async (group) => { await told('points', group); return points; },
    timeline: async (group) => { await told('timeline', group); return timeline; },
    describePoint: async (...all) => { await told('describePoint', ...all); return described; },
    holdPoint: async (request) => { await told('holdPoint', request); return { ...described, hold: timeline.holds[0]! }; },
    releasePoint: (...all) => told('releasePoint', ...all),
    verify: async (...all) => { await told('verify', ...all); return verified; },
    invite: async (request) => { await told('invite', request); return { token: 'T', address: 'bravo:7228', fingerprint: 'ab', expiresAtMs: 9 }; },
    pairings: () => ({ certificate, sources: [], invitations: [], oldSecretCount: 2 }),
    revoke: async (which) => { await told('revoke', which); return { name: which, sourceId: 'cd' }; },
    revokeOldSecrets: async () => 2,
    rotate: async (isNow) => { await told('rotate', isNow); return certificate; },
    checkStart: async (request) => { await told('checkStart', request); return startChecked; },
    failover: async (request) => { await told('failover', request); return failedOver; },
    changedSince: () => Promise.resolve([]),
    commitFailover: (...all) => told('commitFailover', ...all),
    stopFailover: (...all) => told('stopFailover', ...all),
    testFailover: async (request) => { await told('testFailover', request); return tested; },
    plan: async (request) => { await told('plan', request); return { group: 'web', atMs: 1, isPlanned: true, point: null, lostMs: null, steps: [], obstacles: ['no point'], measured: null }; },
    lockPoint: async (request) => { await told('lockPoint', request); return { group: 'web', groupId: 'ab', point: timeline.points[0]!, hold: timeline.holds[0]! }; },
    forget: (...all) => told('forget', ...all),
    dismiss: async (group) => { await told('dismiss', group); return dismissed; },
    showGuests: async (group) => { await told('showGuests', group); return [shown]; },
    showRehearsal: async (group) => { await told('showRehearsal', group); return []; },
    rehearse: async (request) => { await told('rehearse', request); return rehearsed; },
    stopTest: (...all) => told('stopTest', ...all),
    seedFrom: (...all) => told('seedFrom', ...all),
    ...more,
  };
}
