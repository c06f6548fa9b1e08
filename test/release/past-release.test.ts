/**
 * The release before this one against this one: a pair made by the old release is upgraded one host after the other, in either order, while a
 * guest is protected. Nothing is seeded or compared anew, and in the end the replica equals the guest's disks.
 */
import t from 'tap';
import { startPair } from '../support/daemons.ts';
import { BuiltCommand } from '../console/built-command.ts';
import { isLong } from '../support/extent.ts';
import { buildRelease, whyNoRelease } from './past-release.ts';
import { StandInGuest } from './stand-in-guest.ts';

const skip = isLong ? await whyNoRelease('0.1.0') ?? false : 'with --long';
const now = skip === false ? (await BuiltCommand.build(t)).program : '';
const past = skip === false ? (await buildRelease(t, '0.1.0')).program : '';

for (const [first, second] of [['source', 'target'], ['target', 'source']] as const) {
  void t.test(`0.1.0: the ${first} is upgraded first, then the ${second}`, { skip, timeout: 120_000 }, async (t) => {
    const pair = await startPair(t, { sourceProgram: past, targetProgram: past });
    const guest = await StandInGuest.start(t);
    await guest.protect(pair);
    await pair.newPoint(guest.name);
    let byte = 10;
    for (const role of [first, second]) {
      const kept = (await pair.target.client.points(guest.name)).length;
      await pair[role].kill('SIGTERM');
      await guest.write(0, byte * 64 * 1024, byte);
      pair[role].program = now;
      await pair[role].start();
      byte += 1;
      await guest.write(1, byte * 64 * 1024, byte);
      await guest.settled(pair);
      const { phase, fullPasses, lastFault } = await pair.guest(guest.name);
      t.equal(phase, 'protected', `with a newer ${role}: ${JSON.stringify(lastFault)}`);
      t.ok(fullPasses <= 1, `no full pass but the first sync: ${fullPasses}`);
      t.ok((await pair.target.client.points(guest.name)).length > kept, 'older points are still there, and newer ones came');
      byte += 1;
    }
    t.equal((await pair.source.client.report()).targets.length, 1, 'the pairing of the older release holds');
    t.same((await pair.target.client.verify(guest.name, undefined)).findings, []);
    await pair.source.client.unprotect(guest.name, false);
    await guest.standIn.quit();
    t.equal(await guest.replicaDifference(pair), null);
  });
}

void t.test('0.1.0 at the target: this release is paired with it anew, and protects', { skip, timeout: 120_000 }, async (t) => {
  const pair = await startPair(t, { sourceProgram: now, targetProgram: past });
  const guest = await StandInGuest.start(t);
  await guest.protect(pair);
  await guest.settled(pair);
  t.equal((await pair.guest(guest.name)).phase, 'protected');
  await pair.source.client.unprotect(guest.name, true);
  t.same((await pair.target.client.report()).groups, []);
});

void t.test('0.1.0 at the source: it has no certificate to be paired by, and is told so', { skip, timeout: 120_000 }, async (t) => {
  await t.rejects(startPair(t, { sourceProgram: past, targetProgram: now }), /HTTP status 403/);
});
