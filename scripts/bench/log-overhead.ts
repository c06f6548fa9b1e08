/**
 * What a write log costs the guest's writes: random writes of 4 KiB, 16 under way, as fast as they go, on one stand-in:
 * unprotected, protected by write logs at an RPO of 500 ms, and under QEMU's own write-blocking mirror to a raw file behind qemu-nbd.
 */
import type { Benchmark } from './benchmark.ts';
import { rpoMsOf, untilCaptured, watchCapture } from './capture-watch.ts';
import { startSource, startTarget } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { ratioOf, spreadOf } from './figures.ts';
import { startFileServer } from './file-server.ts';
import { runLoad, type LoadFigures } from './fio.ts';
import { underWritingMirror } from './peers.ts';
import { startStandIn } from './stand-in.ts';

const rpoMs = rpoMsOf.writelog;

export const logOverhead: Benchmark = async ({ site, say, arguments: { sizeBytes, runs, loadSeconds, profileFolder } }) => {
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes, true);
  const standIn = await startStandIn(site, imagePath, { isLoggable: true });
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
  const load = async (): Promise<LoadFigures> => runLoad(site, { uri: standIn.uri, seconds: loadSeconds, spanBytes: sizeBytes });
  const taken: Record<'bare' | 'logged' | 'mirrored', LoadFigures[]> = { bare: [], logged: [], mirrored: [] };
  const meanwhile: object[] = [];
  for (let round = 1; round <= runs; round++) {
    await readIntoCache(imagePath);
    taken.bare.push(await load());
    const name = `guest${round}`;
    await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [standIn.topNode], capture: 'writelog' });
    await untilCaptured(source, name, 'writelog');
    const { loaded, before, after } = await watchCapture(source, name, 'writelog', load);
    taken.logged.push(loaded);
    meanwhile.push({
      points: after.capture!.logCuts - before.capture!.logCuts, dropped: after.capture!.droppedCycles - before.capture!.droppedCycles,
      rpo_ms_max: Math.round(after.rpo.maxMs ?? 0), last_fault: after.lastFault?.code ?? null,
    });
    await source.client.unprotect(name, true);
    const server = await startFileServer(site, sizeBytes);
    taken.mirrored.push(await underWritingMirror(standIn, server, load));
    await server.end();
    say(`round ${round}: ${(['bare', 'logged', 'mirrored'] as const).map((kind) => `${kind} ${Math.round(taken[kind].at(-1)!.iops)} IOPS`).join(', ')}; meanwhile ${JSON.stringify(meanwhile.at(-1))}`);
  }

  const iops = (kind: keyof typeof taken) => spreadOf(taken[kind].map((one) => one.iops));
  const p99 = (kind: keyof typeof taken) => spreadOf(taken[kind].map((one) => one.p99Us));
  const [bare, logged, mirrored] = [iops('bare'), iops('logged'), iops('mirrored')];
  const [ratio, mirrorRatio] = [ratioOf(logged, bare, false), ratioOf(logged, mirrored, false)];
  return {
    name: 'overhead', unit: 'IOPS', ours: logged.median, peer: bare.median, ratio, runs,
    extras: {
      capture: 'writelog', image_bytes: sizeBytes, rpo_ms: rpoMs, load_seconds: loadSeconds, iops_unprotected: bare, iops_protected: logged, iops_mirror: mirrored,
      ratio_to_mirror: mirrorRatio, p99_us_unprotected: p99('bare'), p99_us_protected: p99('logged'), p99_us_mirror: p99('mirrored'), meanwhile,
    },
    rows: [
      { what: 'unprotected', unit: 'IOPS', spread: bare },
      { what: 'protected by a write log', unit: 'IOPS', spread: logged, ratio },
      { what: 'write-blocking mirror', unit: 'IOPS', spread: mirrored, ratio: mirrorRatio },
      { what: 'unprotected, p99', unit: 'us', spread: p99('bare') }, { what: 'protected, p99', unit: 'us', spread: p99('logged') }, { what: 'mirror, p99', unit: 'us', spread: p99('mirrored') },
    ],
    notes: ['ours: IOPS protected by a write log; peer: the same unprotected, through the same throttle filter', `the mirror’s ratio is ours to the mirror’s: ${mirrorRatio}; 1 or more is the bar`],
  };
};
