/** Stored bytes are checked by themselves: when they are due, at the rate that is allowed, and never beside a failover. */
import pino from 'pino';
import t from 'tap';
import { Scrub } from '../../replica-target/points/scrub.ts';
import { formatVerification } from '../../console/render/verification.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest } from '../store/model-guest.ts';
import { appendAll, folder, openSeeded } from '../store/store-rig.ts';

const KiB = 1024;
const log = pino({ level: 'silent' });

async function settle(): Promise<void> {
  for (let i = 0; i < 3000; i++) await Promise.resolve();
}

t.test('due, paced, paused, and what it finds is kept', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([1024 * KiB]);
  const { store, registry } = await openSeeded(disk, guest, { segmentBytes: 512 * KiB, journalKeepBytes: 1024 * KiB }, clock);
  for (let i = 0; i < 4; i++) guest.write(0, i * 256 * KiB, Buffer.alloc(64 * KiB, i + 1));
  await appendAll(store, guest.cut());
  await store.compare(0, 0, 512, 512, Buffer.alloc(32));
  const checks = store.restorePoints.checks!;
  let isPaused = true;
  // The journal has 256 KiB, the replica 1 MiB.
  const scrub = new Scrub({ rateBytesPerSecond: 100 * KiB, everyMs: 3_600_000, clock, log, groups: () => [{ name: 'web', checks }], isPaused: () => isPaused });
  await settle();
  t.equal(checks.report().underWay, null, 'not at once');
  clock.advance(60_000);
  await settle();
  t.equal(checks.report().underWay?.doneBytes, 0, 'a failover is under way');
  await t.rejects(checks.verify(null), { code: 'REQUEST_INVALID' }, 'one at a time');
  isPaused = false;
  const begunMs = clock.monotonicMs();
  for (let i = 0; i < 1000 && checks.report().underWay !== null; i++) {
    clock.advance(100);
    await settle();
  }
  const report = checks.report();
  t.match(report, { underWay: null, findingCount: 0, lastAtMs: Number });
  const tookMs = clock.monotonicMs() - begunMs;
  t.ok(tookMs >= 10_000 && tookMs < 20_000, `${tookMs} ms for some 1.3 MiB at 100 KiB/s`);

  disk.flip(folder.image(0), 256 * KiB + 7);
  clock.advance(1_800_000);
  await settle();
  t.equal(checks.report().underWay, null, 'not due yet');
  clock.advance(1_800_000);
  await settle();
  clock.advance(60_000);
  await settle();
  for (let i = 0; i < 1000 && checks.report().findingCount === 0; i++) {
    clock.advance(100);
    await settle();
  }
  t.match(checks.report(), { findingCount: 1, findings: [{ path: folder.image(0), offset: 256 * KiB }] });
  await scrub.close();
  const text = formatVerification({ isColour: false, columns: 100 } as never, 'web', await checks.verify(null));
  t.match(text, /web: damaged, 1 place/);
  t.match(text, /0\.raw, offset 262144: .*; point 1\.1 needs it/);
  await registry.close();
});

t.test('the end of the target ends a check', async (t) => {
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(new SimulatedDisk(), guest, {}, clock);
  guest.write(0, 0, Buffer.alloc(8 * KiB, 1));
  await appendAll(store, guest.cut());
  const checks = store.restorePoints.checks!;
  const scrub = new Scrub({ rateBytesPerSecond: 1, everyMs: 1, clock, log, groups: () => [{ name: 'web', checks }], isPaused: () => false });
  clock.advance(60_000);
  await settle();
  t.not(checks.report().underWay, null);
  await scrub.close();
  t.match(checks.report(), { underWay: null, lastAtMs: null });
  await registry.close();
});
