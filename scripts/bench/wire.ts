/**
 * Bytes on the wire for each byte that the guest changed: 4 KiB of random bytes at scattered places, none twice, 1,000 a second.
 * What the link sent from before the first write until the target held the last, seals and everything included (TLS's own framing is not).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { connectNbd } from '../../qemu/nbd-client.ts';
import type { BenchCapture } from './arguments.ts';
import type { Benchmark } from './benchmark.ts';
import { guestOf, rpoMsOf, untilCaptured, watchCapture } from './capture-watch.ts';
import { startSource, startTarget } from './daemons.ts';
import { chooseBlocks } from './dirty-blocks.ts';
import { Content, makeDiskImage } from './disk-image.ts';
import { rounded, spreadOf } from './figures.ts';
import { until } from './site.ts';
import { exportName, startStandIn } from './stand-in.ts';

const writeBytes = 4096;
const writesPerSecond = 1000;
/** Written at once, then it is waited for the pace. */
const burst = 16;
const bar = 1.1;

export const wire: Benchmark = async ({ site, say, arguments: { sizeBytes, runs, loadSeconds, capture: named } }) => {
  const main = named ?? 'writelog';
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes, true);
  const standIn = await startStandIn(site, imagePath, { isLoggable: true });
  const target = await startTarget(site);
  const source = await startSource(site, (await target.client.invite()).token);
  const client = await connectNbd({ path: standIn.nbdPath, exportName, requestsMax: burst });
  const sent = async (): Promise<number> => (await source.client.report()).targets[0]!.sentBytes;
  const taken: Record<BenchCapture, number[]> = { writelog: [], cbt: [] };
  const changed = Math.min(writesPerSecond * loadSeconds, Math.floor(sizeBytes / writeBytes / 2)) * writeBytes;
  for (let round = 1; round <= runs; round++) {
    for (const capture of ['writelog', 'cbt'] as const) {
      const name = `guest${round}${capture}`;
      await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs: rpoMsOf[capture], storageDaemonDisks: [standIn.topNode], capture });
      await untilCaptured(source, name, capture);
      const content = new Content(2000 + round);
      const places = chooseBlocks(sizeBytes / writeBytes, changed / writeBytes, round);
      const before = await sent();
      await watchCapture(source, name, capture, async () => {
        const fromMs = performance.now();
        for (let at = 0; at < places.length; at += burst) {
          await Promise.all(places.slice(at, at + burst).map((place) => client.write(Buffer.from(content.random(writeBytes)), place * writeBytes)));
          await delay(Math.max(0, fromMs + (at + burst) / writesPerSecond * 1000 - performance.now()));
        }
        await client.flush();
        const endedAtMs = Date.now();
        await until('the target holds the last write', async () => ((await guestOf(source, name)).newestPoint?.cutAtMs ?? 0) > endedAtMs, { running: source.running, limitMs: 120_000, everyMs: 50 });
      });
      taken[capture].push((await sent() - before) / changed);
      say(`round ${round}: ${capture}: ${taken[capture].at(-1)!.toFixed(3)} bytes sent for each byte changed`);
      await source.client.unprotect(name, true);
    }
  }
  await client.close();

  const spreads = { writelog: spreadOf(taken.writelog, 3), cbt: spreadOf(taken.cbt, 3) };
  const ratio = rounded(bar / spreads[main].median, 3);
  return {
    name: 'wire', unit: 'bytes per byte', ours: spreads[main].median, peer: bar, ratio, runs,
    extras: { capture: main, image_bytes: sizeBytes, changed_bytes: changed, writelog: spreads.writelog, cbt: spreads.cbt },
    rows: (['writelog', 'cbt'] as const).map((capture) => ({ what: `sent per byte changed, ${capture}`, unit: '', spread: spreads[capture], ...(capture === main ? { ratio } : {}) })),
    notes: [`ours: ${main}; peer: the bar of 1.1`, `${rounded(changed / 1e6, 1)} MB in scattered writes of 4 KiB, incompressible, none twice, ${writesPerSecond} a second`],
  };
};
