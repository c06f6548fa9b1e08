import { stripVTControlCharacters } from 'node:util';
import t from 'tap';
import type { GuestPhase } from '../../../daemon/report.ts';
import { plainLook } from '../../../console/render/look.ts';
import { formatPass, passRate } from '../../../console/render/pass-line.ts';
import { formatFailoverOutlook, formatFailoverResult } from '../../../console/render/points.ts';
import { formatSourceStatus } from '../../../console/render/source-status.ts';
import { formatTargetStatus } from '../../../console/render/target-status.ts';
import { atMs, behindGuest, group, points, protectedGuest, sourceTargetDown, sourceUp, syncingGuest, targetUp } from '../fixed-reports.ts';

process.env['TZ'] = 'UTC';

function lines(text: string): string[] {
  return text.trimEnd().split('\n');
}

t.test('a source whose target is up', async (t) => {
  t.strictSame(lines(formatSourceStatus(plainLook, sourceUp)), [
    'source 0.1.0, 2030-01-02 03:04:05',
    '',
    'target bravo (bravo.example.org:7228) up for 1 h, 5.0 GiB sent, compressed to 40 % (the link is the bottleneck)',
    '',
    'GUEST  PHASE       TARGET  POINT    RPO  CAPTURED  RECEIVED  APPLIED  NEWEST POINT   BEHIND  RPO P50    P99    SPOOL  IN PATH',
    'web    protected   bravo    1.12  5.0 s     0.9 s     3.1 s    8.1 s         3.1 s  3.0 MiB    5.2 s  7.4 s  8.0 MiB    41 ms',
    'mail   first sync  bravo       –  5.0 s         –         –        –             –  6.0 GiB        –      –  8.0 MiB    41 ms',
    '',
    'mail: first sync ██████░░░░░░░░░░░░░░░░░░ 25 %, 2.0 GiB of 8.0 GiB, 34 MiB/s (limit 100 MiB/s), 3 min left, 1.0 GiB sent',
  ]);
});

t.test('a source whose target is down says since when and how far behind', async (t) => {
  const page = lines(formatSourceStatus(plainLook, sourceTargetDown));
  t.equal(page[2], 'target bravo (bravo.example.org:7228) down since 2030-01-02 02:54:05 (10 min), 700 MiB and 10 min 1 s behind (TARGET_UNREACHABLE: connect ECONNREFUSED)');
  t.match(page, ['', '', '', '', /^GUEST/, /^db +behind +bravo +1\.77 .* 700 MiB /, '', 'db: behind for 10 min: target down: connect ECONNREFUSED', 'db: 1.0 s ago TARGET_UNREACHABLE: connect ECONNREFUSED'].slice(4).reduce<Record<number, string | RegExp>>((all, line, index) => ({ ...all, [index + 4]: line }), {}));
  const unknown = { ...sourceTargetDown, guests: [{ ...behindGuest, clocks: { ...behindGuest.clocks, newestPointMs: null } }] };
  t.match(formatSourceStatus(plainLook, unknown), /700 MiB and all of it behind/, 'nothing has ever arrived');
  t.match(formatSourceStatus(plainLook, { ...sourceTargetDown, guests: [] }), /down since .*, nothing to send/);
});

t.test('a marked point says what it is, how long the guest was frozen, and why it is not app', async (t) => {
  const marked = { term: 1, point: 9, kind: 'app' as const, cutAtMs: atMs, isAppWanted: true, reason: null, label: 'before \u001b[31mupgrade', frozenMs: 40, freezeMs: 30, thawMs: 5 };
  const shown = (more: object): string => formatSourceStatus(plainLook, { ...sourceUp, guests: [{ ...protectedGuest, marked: { ...marked, ...more } }] });
  t.match(shown({}), 'web: point 1.9 is app, cut 2030-01-02 03:04:05, labelled "before  [31mupgrade", the guest was frozen for 40 ms\n');
  t.match(shown({ kind: 'crash', frozenMs: undefined, label: undefined, notApp: 'AGENT_SILENT', reason: { code: 'AGENT_SILENT', message: 'no answer' } }), 'web: point 1.9 is crash, cut 2030-01-02 03:04:05, not app: AGENT_SILENT: no answer\n');
});

t.test('an empty source says how to go on', async (t) => {
  const text = formatSourceStatus(plainLook, { ...sourceUp, targets: [], guests: [] });
  t.match(text, /no target is paired: .*afterimage pair TOKEN/);
  t.match(text, /no guest is protected: /);
});

t.test('every phase has words', async (t) => {
  for (const phase of ['connecting', 'first-sync', 'resync', 'protected', 'behind', 'held', 'superseded', 'refused'] satisfies GuestPhase[]) {
    t.match(formatSourceStatus(plainLook, { ...sourceUp, guests: [{ ...protectedGuest, phase, detail: 'why \u001b[2J' }] }), new RegExp(`^web +${phase.replace('-', ' ')}`, 'm'));
  }
});

t.test('progress: rate from the last reports, time left, pause', async (t) => {
  const pass = syncingGuest.pass!;
  const MiB = 1024 ** 2;
  t.equal(passRate(pass, atMs, { atMs: atMs - 10_000, doneBytes: pass.doneBytes - 500 * MiB }), 50 * MiB);
  t.equal(passRate(pass, atMs, { atMs: pass.startedAtMs - 1, doneBytes: 0 }), pass.doneBytes / 60, 'a sample of an earlier pass does not count');
  t.equal(passRate(pass, pass.startedAtMs + 10, null), null, 'too early to say');
  t.match(formatPass(plainLook, { ...pass, isPaused: true }, atMs), /25 %, 2.0 GiB of 8.0 GiB, paused, 1.0 GiB sent$/);
  t.match(formatPass(plainLook, { ...pass, doneBytes: 0, totalBytes: 0 }, pass.startedAtMs), /^░+ 0 %, 0 B of 0 B, 1.0 GiB sent$/, 'nothing is known yet');
  t.match(formatPass(plainLook, { ...pass, doneBytes: pass.totalBytes + 5 }, atMs), /^█{24} 100 %.* 0 ms left/, 'more than all is all');
});

t.test('a target', async (t) => {
  t.strictSame(lines(formatTargetStatus(plainLook, targetUp)), [
    `target 0.1.0, 2030-01-02 03:04:05, bravo.example.org:7228, fingerprint ${'ab'.repeat(32)}`,
    '',
    'source alpha (192.0.2.7:41234) connected for 1 h, 5.0 GiB received',
    '',
    'GROUP  STATE      DISKS    SIZE  POINTS  NEWEST   AGE    RPO  APPLIED  REPLICA  JOURNAL  HISTORY',
    'web    protected      1  20 GiB       3     1.3  10 s  5.0 s      1.2  7.0 GiB   64 MiB   10 MiB',
    'full   held           1  20 GiB       3     1.3  10 s  5.0 s      1.2  7.0 GiB   64 MiB   10 MiB',
    '',
    'full: held since 2030-01-02 03:03:35 (30 s), STORE_FULL: no space for a segment',
    'points over NBD: /srv/afterimage/points.sock, 192.0.2.9:10809 (TLS); 4 connections read 1 points',
    'refused since start: WIRE_SECRET 3×',
  ]);
  const failedOver = { ...targetUp, sources: [], groups: [{ ...group, state: 'failed-over' as const }], failovers: [{ group: 'web', term: 2, point: { term: 1, point: 3 }, guests: [{ name: 'web', qmpPath: '/q', logPath: '/l', pid: 77, isRunning: true }], qmpPath: '/q', logPath: '/l', pid: 77, isRunning: true, startedAtMs: atMs - 5000, home: null, isAwaited: false, isCommitting: false, decision: null }] };
  const text = formatTargetStatus(plainLook, failedOver);
  t.match(text, /^web +failed over/m);
  t.match(text, /^web: failed over to point 1\.3 in term 2, runs here \(pid 77, QMP \/q, started 5\.0 s ago\)/m);
  t.match(text, /no source is connected/);
  const coming = formatTargetStatus(plainLook, { ...failedOver, failovers: [{ ...failedOver.failovers[0]!, home: { state: 'streaming', doneBytes: 1 << 29, totalBytes: 1 << 30 } }] });
  t.match(coming, /ago\); coming home: 50 %, 512 MiB of 1\.0 GiB$/m);
  const testing = formatTargetStatus(plainLook, {
    ...targetUp,
    tests: [{ group: 'web', point: { term: 1, point: 2 }, cutAtMs: atMs - 15_000, guests: [{ name: 'web', qmpPath: '/q', logPath: '/l', pid: 78, isRunning: true }], qmpPath: '/q', logPath: '/l', pid: 78, isRunning: true, startedAtMs: atMs - 5000, endsAtMs: atMs + 60_000, budgetBytes: 1 << 30, usedBytes: 1 << 20, network: 'none' }],
    endedTests: [{ group: 'web', point: { term: 1, point: 1 }, endedAtMs: atMs - 30_000, why: 'budget' }],
  });
  t.match(testing, /^web +protected, testing/m);
  t.match(testing, /^web: a test of point 1\.2 \(cut 2030-01-02 03:03:50\) runs \(pid 78, QMP \/q, 1\.0 MiB of 1\.0 GiB written, ends in 1 min\)$/m);
  t.match(testing, /^web: a test of point 1\.1 ended 30 s ago, because it had written its budget$/m);
  t.match(formatTargetStatus(plainLook, { ...targetUp, groups: [] }), /no group is here yet/);
  t.match(formatTargetStatus(plainLook, { ...targetUp, groups: [{ ...group, newest: null, seed: 'partial' }] }), /^web +first sync/m);
});

t.test('failovers', async (t) => {
  t.match(formatFailoverOutlook(plainLook, group, atMs), /web would boot here from point 1\.3 \(crash\), cut 2030-01-02 03:03:55\.\n.*last 10 s .*would be lost/);
  t.match(formatFailoverOutlook(plainLook, { ...group, newest: null }, atMs), /no point yet/);
  t.match(formatFailoverResult(plainLook, { group: 'web', term: 2, point: points[2]!, lostMs: 10_000, rtoMs: 2500, guests: [{ name: 'web', qmpPath: '/q', pid: 7, logPath: '/l' }], qmpPath: '/q', pid: 7, logPath: '/l', overlayPaths: ['/o1', '/o2'], accel: 'tcg', isComingHome: false }),
    'web runs here from point 1.3, in term 2, 2.5 s after it was asked for.\nLost at most: the 10 s after that point.\npid 7 (tcg), QMP /q, log /l\noverlay /o1\noverlay /o2\n');
});

t.test('colour only where it is asked for; extra columns go where it is narrow', async (t) => {
  const plain = formatSourceStatus(plainLook, sourceUp);
  t.notMatch(plain, /\u001b/);
  const colourful = formatSourceStatus({ ...plainLook, isColour: true }, sourceUp);
  t.match(colourful, /\u001b\[/);
  t.equal(stripVTControlCharacters(colourful), plain);
  const narrow = lines(formatSourceStatus({ isColour: true, width: 80 }, sourceUp)).map(stripVTControlCharacters).find((line) => line.startsWith('GUEST'))!;
  t.match(narrow, /^GUEST +PHASE +POINT +RPO +CAPTURED +RECEIVED +APPLIED +NEWEST POINT +BEHIND$/, 'the four clocks stay');
});
