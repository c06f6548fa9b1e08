/** Resident memory of each role during a first sync through TLS: the kernel's high-water mark of processes that were started for it. */
import type { Benchmark } from './benchmark.ts';
import { endDaemon, startSource, startTarget, untilProtected } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { spreadOf } from './figures.ts';
import { peakMib } from './process-usage.ts';
import { untilSeeded } from './seed-watch.ts';
import { diskNode, startStandIn } from './stand-in.ts';

/** The project's own limit for a role, MiB. */
const limitMib = 300;

export const memory: Benchmark = async ({ site, say, arguments: { sizeBytes, runs, profileFolder } }) => {
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes);
  const standIn = await startStandIn(site, imagePath);
  const peaks: Record<'source' | 'target', number[]> = { source: [], target: [] };
  for (let round = 1; round <= runs; round++) {
    await readIntoCache(imagePath);
    const target = await startTarget(site, { profileFolder });
    const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
    const idle = { source: peakMib(source.running.pid), target: peakMib(target.running.pid) };
    const { groupId } = await source.client.protect({ name: 'guest', qmpPath: standIn.qmpPath, rpoMs: 3_600_000, storageDaemonDisks: [diskNode] });
    await untilSeeded({ ...target, groups: async () => (await target.client.report()).groups }, groupId);
    await untilProtected(source, 'guest');
    const seeded = { source: peakMib(source.running.pid), target: peakMib(target.running.pid) };
    for (const role of ['source', 'target'] as const) peaks[role].push(seeded[role]);
    say(`round ${round}: source ${Math.round(seeded.source)} MiB (${Math.round(idle.source)} before), target ${Math.round(seeded.target)} MiB (${Math.round(idle.target)} before)`);
    await source.client.unprotect('guest', true);
    await endDaemon(source);
    await endDaemon(target);
  }
  const [source, target] = [spreadOf(peaks.source, 1), spreadOf(peaks.target, 1)];
  const ours = Math.max(source.median, target.median);
  return {
    name: 'memory', unit: 'MiB', ours, peer: limitMib, ratio: Math.round(limitMib / ours * 1000) / 1000, runs,
    extras: { image_bytes: sizeBytes, source_rss_mib: source.median, target_rss_mib: target.median, source_mib: source, target_mib: target },
    rows: [{ what: 'source', unit: 'MiB', spread: source }, { what: 'target', unit: 'MiB', spread: target }],
    notes: ['high-water marks (VmHWM) of fresh processes after one first sync through TLS; ours: the larger of the medians', `peer: the limit of ${limitMib} MiB that the project sets itself`],
  };
};
