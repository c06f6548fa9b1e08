/** What protection takes, from what was measured: the arithmetic, and that it errs to the safe side. */
import fc from 'fast-check';
import t from 'tap';
import { estimateBitmapName, isEstimateBitmap, parseBitmapName } from '../../../daemon/capture/object-names.ts';
import { planReconcile } from '../../../daemon/capture/reconcile-plan.ts';
import { measurementOfPoints, planEstimate, type ChangeMeasurement, type EstimateRequest } from '../../../console/estimate/estimate-plan.ts';
import { defaultRetention } from '../../../replica-target/points/retention-plan.ts';

const mib = 1024 ** 2;
const gib = 1024 ** 3;
const request: EstimateRequest = { rpoMs: 5000, linkBytesPerSecond: 10 * mib, retention: defaultRetention };

/** 20 MiB a cycle of 5 s, and 60 MiB a minute, of which most were the same places. */
const measured: ChangeMeasurement = {
  forMs: 60_000, sizeBytes: 100 * gib, written: { bytes: 240 * mib, operations: 3840 },
  windows: [
    { windowMs: 5000, cycles: [...Array.from({ length: 11 }, () => ({ ms: 5000, changedBytes: 20 * mib })), { ms: 5000, changedBytes: 32 * mib }] },
    { windowMs: 60_000, cycles: [{ ms: 60_000, changedBytes: 60 * mib }] },
  ],
};

t.test('a guest that rewrites', (t) => {
  const { windows, written, rpo, space, spoolBytes, firstSyncMs, capture } = planEstimate(measured, request);
  t.match(windows[0], { cycles: 12, medianBytes: 20 * mib, p95Bytes: 32 * mib, maxBytes: 32 * mib });
  t.equal(windows[0]!.bytesPerSecond, 252 * mib / 60);
  t.same(written, { bytesPerSecond: 4 * mib, operationsPerSecond: 64, meanBytes: 64 * 1024 });
  t.match(rpo, { windowMs: 5000, leastBytesPerSecond: Math.ceil(4.2 * mib), wantedBytesPerSecond: Math.ceil(6.4 * mib), expectedMs: 5000 + 3200 });
  t.equal(firstSyncMs, 100 * gib / (10 * mib) * 1000);
  t.equal(spoolBytes, 64 * mib);
  t.equal(space.bytesPerHour, Math.ceil(4.2 * mib * 3600));
  t.equal(space.windowBytes, Math.ceil(2 * 4.2 * mib * 4 * 3600), 'journal and history, each at most what was changed');
  // 1 MiB/s over long: 24 hours, 7 days, 4 weeks and 12 months, none larger than the disk.
  const older = 24 * 3600 * mib + 7 * 86_400 * mib + (4 + 12) * 100 * gib;
  t.equal(space.olderBytes, older);
  t.equal(space.totalBytes, 100 * gib + Math.ceil(2 * 4.2 * mib * 4 * 3600 + older));
  t.equal(capture.capture, 'cbt');
  t.end();
});

t.test('a link that cannot keep up', (t) => {
  t.equal(planEstimate(measured, { ...request, linkBytesPerSecond: 4 * mib }).rpo.expectedMs, null);
  t.end();
});

t.test('small scattered writes ask for the log, which carries what was written and not the blocks around it', (t) => {
  const scattered: ChangeMeasurement = { forMs: 10_000, sizeBytes: gib, written: { bytes: 8 * mib, operations: 2048 }, windows: [{ windowMs: 5000, cycles: [{ ms: 5000, changedBytes: 64 * mib }, { ms: 5000, changedBytes: 64 * mib }] }] };
  const { capture, rpo } = planEstimate(scattered, request);
  t.equal(capture.capture, 'writelog');
  t.equal(rpo.leastBytesPerSecond, Math.ceil(0.8 * mib));
  t.equal(planEstimate({ ...scattered, written: null }, request).rpo.leastBytesPerSecond, Math.ceil(12.8 * mib), 'where nobody counted the writes it is a copy');
  t.end();
});

t.test('an RPO between the windows takes the shorter one; one below all of them the shortest', (t) => {
  t.equal(planEstimate(measured, { ...request, rpoMs: 30_000 }).rpo.windowMs, 5000);
  t.equal(planEstimate(measured, { ...request, rpoMs: 60_000 }).rpo.windowMs, 60_000);
  t.match(planEstimate(measured, { ...request, rpoMs: 500 }), { rpo: { windowMs: 5000 }, capture: { capture: 'writelog' } });
  t.end();
});

t.test('a guest that does nothing costs its replica alone', (t) => {
  const idle = planEstimate({ forMs: 5000, sizeBytes: gib, written: { bytes: 0, operations: 0 }, windows: [{ windowMs: 5000, cycles: [{ ms: 5000, changedBytes: 0 }] }] }, request);
  t.match(idle, { written: { meanBytes: 0 }, spoolBytes: 0, rpo: { expectedMs: 5000, leastBytesPerSecond: 0 }, space: { totalBytes: gib }, capture: { capture: 'cbt' } });
  t.end();
});

t.test('more changes never cost less, and no figure is anything but a number', (t) => {
  const cycle = fc.record({ ms: fc.integer({ min: 1, max: 600_000 }), changedBytes: fc.integer({ min: 0, max: 2 ** 45 }) });
  fc.assert(fc.property(fc.array(cycle, { minLength: 1, maxLength: 30 }), fc.integer({ min: 100, max: 3_600_000 }), fc.integer({ min: 1, max: 2 ** 33 }), (cycles, rpoMs, linkBytesPerSecond) => {
    const of = (factor: number) => planEstimate({ forMs: 1000, sizeBytes: 2 ** 40, written: null, windows: [{ windowMs: 1000, cycles: cycles.map(({ ms, changedBytes }) => ({ ms, changedBytes: changedBytes * factor })) }] }, { rpoMs, linkBytesPerSecond, retention: defaultRetention });
    const [once, twice] = [of(1), of(2)];
    for (const key of ['bytesPerHour', 'windowBytes', 'olderBytes', 'totalBytes'] as const) if (!(twice.space[key] >= once.space[key] && Number.isFinite(once.space[key]))) return false;
    return twice.spoolBytes >= once.spoolBytes && (once.rpo.expectedMs !== null || twice.rpo.expectedMs === null) && once.rpo.wantedBytesPerSecond >= once.rpo.leastBytesPerSecond;
  }));
  t.end();
});

t.test('from points: neighbours alone, none across a failover, a gap or a clock that was set back', (t) => {
  const point = (term: number, cutAtMs: number, changedBytes: number, keptBy = 'all') => ({ term, cutAtMs, changedBytes, keptBy });
  const points = [
    point(1, 0, 9 * mib, 'hourly'), point(1, 3_600_000, 8 * mib), point(1, 3_605_000, mib), point(1, 3_610_000, 3 * mib),
    point(2, 3_700_000, 7 * mib), point(2, 3_690_000, 7 * mib), point(2, 3_695_000, 2 * mib),
  ];
  t.same(measurementOfPoints(points, gib, 0), {
    forMs: 15_000, sizeBytes: gib, written: null,
    windows: [{ windowMs: 5000, cycles: [{ ms: 5000, changedBytes: mib }, { ms: 5000, changedBytes: 3 * mib }, { ms: 5000, changedBytes: 2 * mib }] }],
  });
  t.equal(measurementOfPoints(points, gib, 3_690_000)?.forMs, 5000);
  t.equal(measurementOfPoints(points.slice(0, 2), gib, 0), null);
  t.equal(measurementOfPoints([], gib, 0), null);
  t.end();
});

t.test('what a killed measurement left is no point’s bitmap, and goes when a daemon protects the guest', (t) => {
  const name = estimateBitmapName(1, 300_000);
  t.ok(isEstimateBitmap(name));
  t.notOk(isEstimateBitmap('afterimage-0123456789abcdef-1-1-300000'));
  t.equal(parseBitmapName(name), undefined);
  const left = { node: 'node1', name, count: 0, granularity: 65_536, isRecording: true, isBusy: false, isInconsistent: false };
  const foreign = { ...left, name: 'somebody-elses' };
  const { removals } = planReconcile({ groupId: '0123456789abcdef0123456789abcdef', held: null, heldParts: 0, disks: [{ disk: 1, name: 'b', trackNode: 'node1' }], bitmaps: [left, foreign] });
  t.same(removals, [{ node: 'node1', name }]);
  t.end();
});
