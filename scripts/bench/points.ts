/**
 * From "view this point" to the first byte: an NBD client connects to a point's export and reads one block of 4 KiB, on disks of
 * 1 GiB and 64 GiB (sparse), with points 1, 100 and 10,000 back, each of 1 MB in scattered blocks. A fresh process of the
 * target's store for every round, so that nothing of the point is in its memory; the files are in the page cache as far as it holds them.
 */
import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { connectNbd } from '../../qemu/nbd-client.ts';
import type { Benchmark, BenchContext } from './benchmark.ts';
import { startPointTarget } from './driven-roles.ts';
import { seededDraw } from './disk-image.ts';
import { ratioOf, rounded, spreadOf, type ResultRow, type Spread } from './figures.ts';
import { makePointHistory, type MadeHistory } from './point-history.ts';
import { peakMib } from './process-usage.ts';

/** The project's own limit, ms. */
const limitMs = 100;
const gib = 1024 ** 3;
const diskSizes = [{ label: '1gib', sizeBytes: gib }, { label: '64gib', sizeBytes: 64 * gib }];
const pointBytes = 1024 * 1024;
const blockBytes = 4096;

export const points: Benchmark = async (context) => {
  const { site, say, arguments: { runs, pointCount } } = context;
  const distances = [...new Set([1, Math.min(100, pointCount), pointCount])];
  const firstByte: Record<string, number[]> = {};
  const facts: Record<string, unknown> = {};
  const memory: number[] = [];
  for (const { label, sizeBytes } of diskSizes) {
    const groupsFolder = `${site.freshPath('points')}/groups`;
    await mkdir(dirname(groupsFolder));
    say(`${label}: making ${pointCount} points of ${pointBytes / 1024} KiB`);
    const history = await makePointHistory({ groupsFolder, sizeBytes, isFilled: false, pointCount: 100, olderCount: Math.max(1, pointCount - 99), pointBytes, say });
    const draw = seededDraw(99);
    for (let round = 0; round <= runs; round++) {
      const target = await startPointTarget(site, groupsFolder);
      const { ready } = target;
      const idleMib = (await target.memory()).rssBytes / 1024 ** 2;
      // The furthest first in every other round: who comes later finds pages that the one before has read.
      for (const back of round % 2 === 0 ? distances : [...distances].reverse()) {
        const tookMs = await timeFirstByte(target.socketPath, history, back, draw(sizeBytes / blockBytes) * blockBytes);
        say(`${label}, ${round === 0 ? 'warm-up' : `round ${round}`}: ${back} back: ${tookMs.toFixed(1)} ms`);
        if (round > 0) (firstByte[`${label}_${back}_back`] ??= []).push(tookMs);
      }
      const rssMib = (await target.memory()).rssBytes / 1024 ** 2;
      if (round > 0) memory.push(rssMib);
      facts[label] = {
        history_files: ready.fileCount, history_bytes: ready.historyBytes, digests: ready.digestCount, digest_bytes: ready.digestBytes,
        open_group_ms: rounded(ready.openMs, 0), digests_loaded_ms: rounded(ready.idleMs, 0), rss_mib_before_a_view: rounded(idleMib, 0), rss_mib_after: rounded(rssMib, 0), rss_mib_peak: rounded(peakMib(target.running.pid), 0),
      };
      await target.running.end();
    }
    await rm(dirname(groupsFolder), { recursive: true });
  }
  return resultOf(context, firstByte, facts, memory);
};

async function timeFirstByte(socketPath: string, { name, pointBack }: MadeHistory, back: number, offset: number): Promise<number> {
  const { term, point } = pointBack(back);
  const fromMs = performance.now();
  const client = await connectNbd({ path: socketPath, exportName: `${name}/vda@${term}.${point}` });
  await client.read(Buffer.allocUnsafe(blockBytes), 0, blockBytes, offset);
  const tookMs = performance.now() - fromMs;
  await client.close();
  return tookMs;
}

function resultOf({ arguments: { runs } }: BenchContext, firstByte: Readonly<Record<string, number[]>>, facts: Readonly<Record<string, unknown>>, memory: readonly number[]): ReturnType<Benchmark> {
  const spreads: [string, Spread][] = Object.entries(firstByte).map(([what, taken]) => [what, spreadOf(taken, 1)]);
  const worst = spreads.reduce((a, b) => (b[1].median > a[1].median ? b : a));
  const limit = spreadOf([limitMs]);
  const rows: ResultRow[] = spreads.map(([what, spread]) => ({ what: what.replaceAll('_', ' '), unit: 'ms', spread, ratio: ratioOf(spread, limit, true) }));
  return Promise.resolve({
    name: 'points', unit: 'ms', ours: worst[1].median, peer: limitMs, ratio: ratioOf(worst[1], limit, true), runs,
    extras: { ...Object.fromEntries(spreads.map(([what, spread]) => [`${what}_ms`, spread])), rss_mib: spreadOf(memory, 0), ...facts },
    rows: [...rows, { what: 'resident memory after', unit: 'MiB', spread: spreadOf(memory, 0) }],
    notes: [
      `ours: the slowest of the medians (${worst[0].replaceAll('_', ' ')}); peer: the limit of ${limitMs} ms that the project sets itself`,
      'from connecting to the export of a point (NBD handshake included) to one block of 4 KiB at a random place, in a fresh process of the store',
      'history made without syncing; its files are in the page cache as far as it holds them',
    ],
  });
}
