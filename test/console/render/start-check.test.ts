import t from 'tap';
import { formatFailoverResult } from '../../../console/render/points.ts';
import { plainLook } from '../../../console/render/look.ts';
import { formatStartReport } from '../../../console/render/start-check.ts';
import { formatTargetStatus } from '../../../console/render/target-status.ts';
import { points, startChecked, targetUp } from '../fixed-reports.ts';

t.test('a page of findings, then what to do, then the sum', async (t) => {
  t.equal(formatStartReport(plainLook, startChecked), [
    '         CHECK         FOUND',
    'fine     QEMU          /usr/bin/qemu-system-x86_64, 7.2.22',
    'warning  CPU model     Skylake would lack avx512f',
    'refused  machine type  this QEMU has no machine pc-q35-99  [31m',
    '',
    'warning  CPU model: Give both hosts a model that both have.',
    'refused  machine type: Install a newer one.',
    '',
    'web could not start here as it should. An unplanned failover would be tried all the same.',
    '',
  ].join('\n'));
  t.match(formatStartReport(plainLook, { ...startChecked, verdict: 'warning', findings: startChecked.findings.slice(0, 2) }), /web can start here; see the warnings\.\n$/);
  t.match(formatStartReport(plainLook, { ...startChecked, verdict: 'fine', findings: startChecked.findings.slice(0, 1) }), /7\.2\.22\n\nweb can start here\.\n$/);
});

t.test('status shows the worst line of each group', async (t) => {
  const line = (more: object): string => formatTargetStatus(plainLook, { ...targetUp, startChecks: [{ ...startChecked, ...more }] }).split('\n').find((text) => /^web: .*start here/.test(text)) ?? '';
  t.equal(line({}), 'web: could not start here: machine type: this QEMU has no machine pc-q35-99  [31m, and 1 more (looked at 5 min ago): afterimage doctor --failover web');
  t.equal(line({ verdict: 'warning', findings: startChecked.findings.slice(1, 2) }), 'web: would start here with a difference: CPU model: Skylake would lack avx512f (looked at 5 min ago): afterimage doctor --failover web');
  t.equal(line({ verdict: 'fine', findings: [] }), 'web: can start here, looked at 5 min ago');
  t.notMatch(formatTargetStatus(plainLook, targetUp), /start here/, 'a target that has not looked yet says nothing');
});

t.test('a failover that went on says in spite of what', async (t) => {
  const result = { group: 'web', term: 2, point: points[2]!, lostMs: 1, rtoMs: 1, guests: [{ name: 'web', qmpPath: '/q', pid: 7, logPath: '/l' }], qmpPath: '/q', pid: 7, logPath: '/l', overlayPaths: [], accel: 'tcg' as const, isComingHome: false };
  t.match(formatFailoverResult(plainLook, { ...result, startCheck: startChecked }), 'refused  machine type: this QEMU has no machine pc-q35-99  [31m. Install a newer one.\n');
  t.notMatch(formatFailoverResult(plainLook, { ...result, startCheck: null }), /refused/);
});
