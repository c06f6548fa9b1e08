/** The page of `afterimage points`, and the summary of ranges. */
import fc from 'fast-check';
import t from 'tap';
import { plainLook } from '../../../console/render/look.ts';
import { formatExport, formatRanges, formatTimeline } from '../../../console/render/timeline.ts';
import { rangesOf } from '../../../replica-target/points/point-ranges.ts';
import { restorePoint } from '../../points/file-points.ts';
import { atMs, described, timeline } from '../fixed-reports.ts';

process.env['TZ'] = 'UTC';
const hourMs = 3_600_000;

t.test('a few points', async (t) => {
  t.strictSame(formatTimeline(plainLook, timeline, false).split('\n'), [
    'web: every point from 2030-01-02 03:03:50 to 2030-01-02 03:03:55, 10 s ago (2); then hourly back to 2030-01-02 03:03:45 (1)',
    '',
    'POINT  KIND   CUT AT                AGE  ARRIVED AFTER  CHANGED  NOISE  APPLIED  FROZEN  KEPT       LABEL',
    '  1.1  crash  2030-01-02 03:03:45  20 s          0.5 s  4.0 MiB      –  yes              hourly',
    '  1.2  app    2030-01-02 03:03:50  15 s          1.0 s    512 B      –  yes       40 ms  all, held  before  [31mupgrade',
    '  1.3  crash  2030-01-02 03:03:55  10 s          0.2 s      0 B      –  not yet          all',
    '',
    'held: 1.2 since 2030-01-02 03:04:00, until 2030-01-02 03:05:05: export of web',
    '',
  ]);
  t.match(formatTimeline(plainLook, { ...timeline, points: [], ranges: [] }, false), /no point yet/);
});

t.test('of many points the newest are shown, and those that somebody marked', async (t) => {
  const points = Array.from({ length: 5000 }, (_, i) => restorePoint(1, i + 1, atMs - (5000 - i) * 1000, i === 3 ? { kind: 'mark', label: 'before upgrade' } : i === 7 ? { isHeld: true } : {}));
  const many = { ...timeline, holds: [], points, ranges: rangesOf(points) };
  const text = formatTimeline(plainLook, many, false);
  t.equal(text.split('\n').filter((line) => /^ *1\.\d+ /.test(line)).length, 22);
  t.match(text, /1\.4 +mark .*before upgrade/);
  t.match(text, /1\.8 +crash .*all, held/);
  t.match(text, /4978 older ones are not shown: --all/);
  t.equal(formatTimeline(plainLook, many, true).split('\n').filter((line) => /^ *1\.\d+ /.test(line)).length, 5000);
});

t.test('ranges: nothing is lost, the finest first, and every point means every one', async (t) => {
  const points = [
    restorePoint(1, 1, atMs - 49 * hourMs, { keptBy: 'daily' }), restorePoint(1, 9, atMs - 6 * hourMs, { keptBy: 'hourly' }), restorePoint(1, 20, atMs - 5 * hourMs, { keptBy: 'hourly' }),
    restorePoint(1, 28, atMs - 2 * hourMs), restorePoint(1, 30, atMs - hourMs), restorePoint(2, 1, atMs - 1000),
  ];
  t.equal(formatRanges(rangesOf(points), atMs), 'every point from 2030-01-02 02:04:05 to 2030-01-02 03:04:04, 1.0 s ago (2); then some back to 2030-01-02 01:04:05 (1); then hourly back to 2030-01-01 21:04:05 (2); then daily back to 2029-12-31 02:04:05 (1)');
  const kept = fc.array(fc.constantFrom('all' as const, 'hourly' as const, 'daily' as const, 'weekly' as const, 'monthly' as const));
  fc.assert(fc.property(kept, (steps) => {
    const list = steps.map((keptBy, i) => restorePoint(1, i + 1, i, { keptBy }));
    return rangesOf(list).reduce((sum, { pointCount }) => sum + pointCount, 0) === list.length;
  }));
});

t.test('an export that stands', async (t) => {
  t.equal(formatExport(plainLook, described, { folder: '/x/web-1.2-qcow2', factsPath: '/x/web-1.2-qcow2/export.json', disks: [{ name: 'drive0', path: '/x/web-1.2-qcow2/drive0.qcow2', sizeBytes: 1 << 30, fileBytes: 1 << 20 }] }), [
    'web at point 1.2 (app, before  [31mupgrade), cut 2030-01-02 03:03:50, is written and verified:',
    '  /x/web-1.2-qcow2/drive0.qcow2  drive0, 1.0 GiB, takes 1.0 MiB',
    '  /x/web-1.2-qcow2/export.json',
    '',
  ].join('\n'));
});
