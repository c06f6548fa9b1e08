import t from 'tap';
import { exposureLevel, fullInMs, groupHealth, guestHealth, isHistoryShort } from '../../console/dashboard/health-plan.ts';
import { joinPoints, pointSeries, recentBytesPerMs } from '../../console/dashboard/point-series-plan.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';
import { atMs, behindGuest, group, protectedGuest, targetUp, timeline } from '../console/fixed-reports.ts';

const report = { ...targetUp, groups: [group] };

t.test('the age of the newest point counts against the objective, and grows while nothing is heard', async (t) => {
  t.equal(exposureLevel(5_000, 5_000), 'good', 'between two points it grows to the objective');
  t.equal(exposureLevel(12_001, 5_000), 'warn');
  t.equal(exposureLevel(27_001, 5_000), 'bad');
  t.equal(exposureLevel(null, 5_000), 'bad');
  const fresh = { ...group, newest: { ...group.newest!, cutAtMs: atMs - 1000 } };
  t.match(groupHealth(report, fresh, 0), { level: 'good', word: 'protected', reasons: [] });
  t.match(groupHealth(report, fresh, 60_000), { level: 'bad', reasons: [/a loss would cost 1 min 1 s; the objective is 5.0 s/] }, 'data that is a minute old is not shown as good');
});

t.test('the worst comes first, and what runs here is no alarm', async (t) => {
  const held = { ...group, held: { code: 'STORE_FULL' as const, sinceMs: atMs, message: 'no space for a segment' } };
  const health = groupHealth({ ...report, startChecks: [{ group: 'web', atMs, verdict: 'refused', accel: 'tcg', network: 'none', findings: [] }] }, held, 0);
  t.match(health, { level: 'bad', reasons: ['no space for a segment', 'it could not start here'] });
  t.match(groupHealth(report, { ...group, newest: null, seed: 'partial' }, 0), { level: 'warn', word: 'first sync' });
  t.match(groupHealth(report, { ...group, state: 'failed-over' }, 600_000), { level: 'other', word: 'failed over', reasons: [] });
  t.match(guestHealth(protectedGuest, 0), { level: 'good', word: 'protected' });
  t.match(guestHealth(behindGuest, 0), { level: 'bad', word: 'behind' });
});

t.test('history shorter than promised is said once the group is old enough', async (t) => {
  const retention = { windowMs: 3_600_000, windowHadMs: 600_000, hourly: 1, daily: 1, weekly: 1, monthly: 1, budgetBytes: null, usedBytes: 600, limitBytes: 1000, space: 'ample' as const };
  const old = { ...group, retention, oldest: { ...group.oldest!, arrivedAtMs: atMs - 7_200_000 }, newest: { ...group.newest!, arrivedAtMs: atMs } };
  t.ok(isHistoryShort(old));
  t.notOk(isHistoryShort({ ...old, oldest: { ...group.oldest!, arrivedAtMs: atMs - 600_000 } }), 'a young group has what it can have');
  t.notOk(isHistoryShort({ ...old, retention: { ...retention, windowHadMs: retention.windowMs - 1 } }), 'the window ends within a gap between two points');
  t.equal(fullInMs(old, 2), 200);
  t.equal(fullInMs(old, 0), null);
});

t.test('series of points: gaps are gaps', async (t) => {
  const points: RestorePoint[] = [...timeline.points, { ...timeline.points[0]!, point: 5, cutAtMs: atMs, arrivedAtMs: atMs + 500, changedBytes: 100 }];
  const series = pointSeries(points);
  t.same(series.exposureS, [null, 6, 5.2, null], 'from the cut of the one before to the arrival of this one; none behind a missing point');
  t.same(series.bytesPerSecond, [null, 512 / 5, 0, null]);
  t.equal(recentBytesPerMs(points, 10_000), 100 / 10_000);
  t.same(joinPoints(points, [{ ...points[1]!, isHeld: false }, { ...points[0]!, point: 6 }], 4).map(({ point, isHeld }) => [point, isHeld]), [[2, false], [3, false], [5, false], [6, false]], 'the newer knowledge of each, and the newest of them');
});
