/** Reports with every part filled in, at a fixed time: what renderers and the control API are tested with. */
import type { GroupTimeline, PointDescription } from '../../replica-target/points/point-desk.ts';
import type { GuestReport, SourceReport } from '../../daemon/report.ts';
import type { StartReport } from '../../replica-target/failover/start-finding.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import type { GroupStoreReport, StoredPoint } from '../../replica-target/store/store.ts';

export const atMs = Date.UTC(2030, 0, 2, 3, 4, 5);
const GiB = 1024 ** 3;
const MiB = 1024 ** 2;

export const protectedGuest: GuestReport = {
  name: 'web', groupId: '0123456789abcdef0123456789abcdef', qmpPath: '/run/web.qmp', target: 'bravo', term: 1, rpoMs: 5000,
  phase: 'protected', detail: 'point 1.12 is at the target', phaseSinceMs: atMs - 3_600_000,
  disks: [{ disk: 0, name: 'drive0', sizeBytes: 20 * GiB }, { disk: 1, name: 'drive1', sizeBytes: 100 * GiB }],
  newestPoint: { term: 1, point: 12, cutAtMs: atMs - 3100 },
  clocks: { capturedMs: 900, receivedMs: 3100, appliedMs: 8100, newestPointMs: 3100 },
  behindBytes: 3 * MiB, pass: null,
  capture: { capture: 'cbt', captureWhy: 'chosen by the operator', logBytes: 0, dirtyBytes: 3 * MiB, spoolBytes: 8 * MiB, spoolBudgetBytes: 4 * GiB, inPathMs: 41, cutMs: 12, cycles: 900, logCuts: 0, droppedCycles: 2, rounds: 0 },
  rpo: { samples: 900, p50Ms: 5200, p99Ms: 7400, maxMs: 9000 }, lastFault: null, fullPasses: 1, marked: null,
};

export const syncingGuest: GuestReport = {
  ...protectedGuest, name: 'mail', groupId: 'ff'.repeat(16), phase: 'first-sync', detail: 'copying all disks', phaseSinceMs: atMs - 60_000,
  disks: [{ disk: 0, name: '/machine/peripheral-anon/device[0]', sizeBytes: 8 * GiB }],
  newestPoint: null, clocks: { capturedMs: null, receivedMs: null, appliedMs: null, newestPointMs: null }, behindBytes: 6 * GiB,
  pass: { doneBytes: 2 * GiB, totalBytes: 8 * GiB, rateBytesPerSecond: 100 * MiB, isPaused: false, startedAtMs: atMs - 60_000, sentBytes: GiB },
  rpo: { samples: 0, p50Ms: null, p99Ms: null, maxMs: null },
};

export const behindGuest: GuestReport = {
  ...protectedGuest, name: 'db', groupId: 'ee'.repeat(16), phase: 'behind', detail: 'target down: connect ECONNREFUSED', phaseSinceMs: atMs - 600_000,
  clocks: { capturedMs: 601_000, receivedMs: 601_000, appliedMs: 603_000, newestPointMs: 601_000 }, behindBytes: 700 * MiB,
  newestPoint: { term: 1, point: 77, cutAtMs: atMs - 601_000 },
  lastFault: { code: 'TARGET_UNREACHABLE', message: 'connect ECONNREFUSED', atMs: atMs - 1000 },
};

const link = { sinceMs: atMs - 3_600_000, lastFault: null, sentBytes: 5 * GiB, reconnects: 1, compression: { isOn: true, why: 'the link is the bottleneck', ratio: 0.4 } };

export const sourceUp: SourceReport = {
  role: 'source', sourceId: 'ab'.repeat(16), version: '0.1.0', atMs, memoryRssBytes: 120 * MiB,
  targets: [{ name: 'bravo', address: 'bravo.example.org:7228', state: 'up', ...link }],
  guests: [protectedGuest, syncingGuest],
  relays: [],
};

export const sourceTargetDown: SourceReport = {
  ...sourceUp,
  targets: [{ name: 'bravo', address: 'bravo.example.org:7228', ...link, state: 'down', sinceMs: atMs - 600_000, lastFault: { code: 'TARGET_UNREACHABLE', message: 'connect ECONNREFUSED', atMs: atMs - 1000 } }],
  guests: [behindGuest],
};

export const points: readonly StoredPoint[] = [
  { term: 1, point: 1, kind: 'crash', cutAtMs: atMs - 20_000, arrivedAtMs: atMs - 19_500, changedBytes: 4 * MiB, isApplied: true },
  { term: 1, point: 2, kind: 'app', cutAtMs: atMs - 15_000, arrivedAtMs: atMs - 14_000, changedBytes: 512, isApplied: true, frozenMs: 40, freezeMs: 30, thawMs: 5, label: 'before \u001b[31mupgrade' },
  { term: 1, point: 3, kind: 'crash', cutAtMs: atMs - 10_000, arrivedAtMs: atMs - 9_800, changedBytes: 0, isApplied: false },
];

export const timeline: GroupTimeline = {
  group: 'web', groupId: '0123456789abcdef0123456789abcdef', atMs,
  ranges: [
    { keptBy: 'all', from: { point: '1.2', cutAtMs: atMs - 15_000 }, to: { point: '1.3', cutAtMs: atMs - 10_000 }, pointCount: 2 },
    { keptBy: 'hourly', from: { point: '1.1', cutAtMs: atMs - 20_000 }, to: { point: '1.1', cutAtMs: atMs - 20_000 }, pointCount: 1 },
  ],
  points: points.map((point, index) => ({ ...point, isHeld: index === 1, keptBy: index === 0 ? 'hourly' : 'all' })),
  holds: [{ holdId: 'h1', point: { term: 1, point: 2 }, reason: 'export of web', takenAtMs: atMs - 5_000, untilMs: atMs + 60_000 }],
};

export const described: PointDescription = {
  group: 'web', groupId: timeline.groupId, point: timeline.points[1]!, hardware: { cpu: 'x' },
  disks: [{ disk: 0, name: 'drive0', sizeBytes: 20 * GiB, exportName: 'web/drive0@1.2' }],
};

export const group: GroupStoreReport = {
  groupId: '0123456789abcdef0123456789abcdef', name: 'web', sourceId: 'aa'.repeat(16), state: 'protected', term: 1, rpoMs: 5000, seed: 'done', isReclaimed: false, formerSourceIds: [],
  disks: [{ disk: 0, name: 'drive0', sizeBytes: 20 * GiB, replicaPath: '/srv/afterimage/web/replica/0.raw', isAtApplied: true }],
  newest: points[2]!, applied: { term: 1, point: 2 }, pointCount: 3, oldest: points[0]!, journalBytes: 64 * MiB, historyBytes: 10 * MiB, replicaBytes: 7 * GiB, retention: null, held: null,
};

export const startChecked: StartReport = {
  group: 'web', atMs: atMs - 300_000, verdict: 'refused', accel: 'tcg', network: 'none', findings: [
    { check: 'QEMU', verdict: 'fine', found: '/usr/bin/qemu-system-x86_64, 7.2.22', advice: '' },
    { check: 'CPU model', verdict: 'warning', found: 'Skylake would lack avx512f', advice: 'Give both hosts a model that both have.' },
    { check: 'machine type', verdict: 'refused', found: 'this QEMU has no machine pc-q35-99 \u001b[31m', advice: 'Install a newer one.' },
  ],
};

export const targetUp: TargetReport = {
  role: 'target', version: '0.1.0', atMs, address: 'bravo.example.org:7228', fingerprint: 'ab'.repeat(32), memoryRssBytes: 90 * MiB,
  sources: [{ sourceId: 'aa'.repeat(16), name: 'alpha', address: '192.0.2.7:41234', sinceMs: atMs - 3_600_000, receivedBytes: 5 * GiB }],
  groups: [group, { ...group, groupId: 'bb'.repeat(16), name: 'full', held: { code: 'STORE_FULL', sinceMs: atMs - 30_000, message: 'no space for a segment' } }],
  failovers: [], tests: [], endedTests: [],
  nbd: { socketPath: '/srv/afterimage/points.sock', address: '192.0.2.9:10809', clients: { 'web/drive0@1.2': 4 }, viewCount: 1, readBytes: 7 * MiB, failedRequests: 0 },
  refusals: { WIRE_SECRET: 3 },
};
