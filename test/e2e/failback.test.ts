/** Home again after a disaster: a host is lost with its guest and its daemons, and comes back later. There and back by plan is in two-hosts.test.ts. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import t from 'tap';
import { isLong } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

// What two-hosts.test.ts looks at with a host that comes back while its guest still runs, here with one that was lost whole.
if (isLong) void t.test('home again after its host was lost: what differs is found by hash', { timeout: 300_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 128 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 290_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');
  await guest.kill();
  await alpha.source.kill();
  await alpha.target.kill();

  const there = await bravo.target.client.failover({ group: 'web1', decision: { act: 'commit', afterMs: 1000 } });
  const [, found] = await watchFile(there.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed by itself' });
  await bravo.newPoint('web1');

  await alpha.target.start();
  await alpha.source.start();
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected', { limitMs: 60_000, what: 'points to be on their way home' });
  const group = await alpha.group('web1');
  t.equal(group.isReclaimed, true, 'they go onto the old disk');
  await t.rejects(promisify(execFile)('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', path]), { message: /Failed to get "write" lock/ }, 'which nobody starts a guest on by accident meanwhile');

  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.equal(back.term, 3);
  const [, again] = await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  t.ok(Number(again) > Number(found));
  await waitFor(async () => (await alpha.guest('web1')).phase === 'protected', { limitMs: 60_000, what: 'protection as it was' });
  t.equal((await alpha.newPoint('web1')).fullPasses, 0);
  const last = await bravo.target.client.failover({ group: 'web1', planned });
  t.equal(last.term, 4);
  t.equal(await hashOf((await bravo.group('web1')).disks[0]!.replicaPath), await hashOf(path), 'both sides hold the same');
});
