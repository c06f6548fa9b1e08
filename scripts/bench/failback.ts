/**
 * The way home when nothing is known of what the old disk holds, as after a lost host: an image with 1 % of its pages changed on one side, and another
 * 1 % on the other, compared by hash and made the same. Beside it rsync with its delta transfer, in place, and a whole copy by nbdcopy.
 */
import { execFile } from 'node:child_process';
import { copyFile, open, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { isFault } from '../../journal/fault.ts';
import type { Benchmark } from './benchmark.ts';
import { startSource, startTarget, untilProtected } from './daemons.ts';
import { chooseBlocks } from './dirty-blocks.ts';
import { Content, makeDiskImage, readIntoCache } from './disk-image.ts';
import { ratioOf, rounded, spreadOf } from './figures.ts';
import { startFileServer } from './file-server.ts';
import { copyByNbdcopy } from './peers.ts';
import { demandSameContent } from './same-content.ts';
import { untilSeeded } from './seed-watch.ts';
import { until } from './site.ts';
import { diskNode, startStandIn } from './stand-in.ts';

const run = promisify(execFile);
const share = 0.01;
/** What file systems write. */
const pageBytes = 4096;
/** Keeps cycles out of the measurement. */
const rpoMs = 3_600_000;

export const failback: Benchmark = async ({ site, say, arguments: { runs, sizeBytes } }) => {
  const [base, there, old] = [site.path('base.raw'), site.path('there.raw'), site.path('old.raw')];
  await makeDiskImage(base, sizeBytes, true);
  await copyFile(base, there);
  await copyFile(base, old);
  const pages = chooseBlocks(sizeBytes / pageBytes, Math.floor(2 * share * sizeBytes / pageBytes), 5);
  await changePages(there, pages.slice(0, pages.length / 2), 11);
  await changePages(old, pages.slice(pages.length / 2), 12);
  await rm(base);
  const differingBytes = pages.length * pageBytes;

  const standIn = await startStandIn(site, there);
  const target = await startTarget(site);
  const source = await startSource(site, (await target.client.invite()).token);
  const ours: number[] = [];
  const moved: number[] = [];
  const rsynced: number[] = [];
  const rsyncBytes: number[] = [];
  const copied: number[] = [];
  for (let round = 0; round <= runs; round++) {
    const label = round === 0 ? 'warm-up' : `round ${round}`;
    await Promise.all([readIntoCache(there), readIntoCache(old)]);
    const name = `guest${round}`;
    const { groupId } = await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [diskNode], isPaused: true });
    await until('the group is announced', async () => (await target.client.report()).groups.some((group) => group.groupId === groupId), { running: target.running });
    await seedFrom(() => target.client.seedFrom(name, 0, old));
    const before = (await source.client.report()).targets[0]!.sentBytes;
    const fromMs = performance.now();
    await source.client.resume(name);
    const group = await untilSeeded({ ...target, groups: async () => (await target.client.report()).groups }, groupId);
    const tookMs = performance.now() - fromMs;
    const sentBytes = (await source.client.report()).targets[0]!.sentBytes - before;
    await untilProtected(source, name);
    if (round === 0) await demandSameContent(there, group.disks[0]!.replicaPath);
    await source.client.unprotect(name, true);

    const into = site.freshPath('rsync');
    await copyFile(old, into);
    const rsyncFromMs = performance.now();
    const literal = await rsync(there, into);
    const rsyncMs = performance.now() - rsyncFromMs;
    if (round === 0 && literal !== null) await demandSameContent(there, into);
    await rm(into);

    const server = await startFileServer(site, sizeBytes);
    const copyMs = await copyByNbdcopy(site, standIn, server);
    await server.end();
    say(`${label}: ours ${tookMs.toFixed(0)} ms, ${sentBytes} bytes; rsync ${literal === null ? 'is not here' : `${rsyncMs.toFixed(0)} ms, ${literal} bytes`}; nbdcopy ${copyMs.toFixed(0)} ms`);
    if (round === 0) continue;
    ours.push(tookMs);
    moved.push(sentBytes);
    copied.push(copyMs);
    if (literal !== null) { rsynced.push(rsyncMs); rsyncBytes.push(literal); }
  }
  const [oursMs, copyMs, oursBytes] = [spreadOf(ours), spreadOf(copied), spreadOf(moved)];
  const rsyncMs = rsynced.length === 0 ? null : spreadOf(rsynced);
  // Two 32-byte hashes for each 64 KiB at most, and one for each page of those that differ.
  const hashBytes = (sizeBytes / 65_536) * 32 + pages.length * 16 * 32;
  return {
    name: 'failback', unit: 'ms', ours: oursMs.median, peer: (rsyncMs ?? copyMs).median, ratio: ratioOf(oursMs, rsyncMs ?? copyMs, true), runs,
    extras: {
      image_bytes: sizeBytes, differing_bytes: differingBytes, moved_bytes: oursBytes, moved_per_differing: rounded(oursBytes.median / differingBytes, 3), hash_bytes_max: hashBytes,
      rsync_ms: rsyncMs, rsync_bytes: rsyncBytes.length === 0 ? null : spreadOf(rsyncBytes), nbdcopy_ms: copyMs, ratio_nbdcopy: ratioOf(oursMs, copyMs, true),
    },
    rows: [
      { what: 'ours, by hash, through TLS', unit: 'ms', spread: oursMs },
      ...(rsyncMs === null ? [] : [{ what: 'rsync --inplace --no-whole-file', unit: 'ms', spread: rsyncMs, ratio: ratioOf(oursMs, rsyncMs, true) }]),
      { what: 'nbdcopy --flush, all of it', unit: 'ms', spread: copyMs, ratio: ratioOf(oursMs, copyMs, true) },
      { what: `ours, moved (${rounded(oursBytes.median / differingBytes, 2)} of what differs)`, unit: 'bytes', spread: oursBytes },
    ],
    notes: [
      'each side changed 1 % of the image, in other pages of 4 KiB; nothing is known of where', 'moved: records as they are on the wire, hashes beside them at most `hash_bytes_max`',
      ...(rsyncMs === null ? ['rsync is not installed: the peer is nbdcopy'] : ['rsync: both ends on this host, over a pipe, nothing encrypted']),
    ],
  };
};

/** Random pages, so that none stays as it was. */
async function changePages(path: string, pages: readonly number[], seed: number): Promise<void> {
  const content = new Content(seed);
  const file = await open(path, 'r+');
  try {
    for (const page of pages) await file.write(content.random(pageBytes), 0, pageBytes, page * pageBytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Bytes of literal data; null: there is no rsync. */
async function rsync(from: string, into: string): Promise<number | null> {
  try {
    const { stdout } = await run('rsync', ['--inplace', '--no-whole-file', '--ignore-times', '--stats', '--fsync', from, into]);
    return Number(/Literal data: ([\d,.]+)/.exec(stdout)?.[1]?.replace(/[,.]/g, '') ?? Number.NaN);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** The source may be about to begin, and is then to hold. */
async function seedFrom(put: () => Promise<void>): Promise<void> {
  try {
    await put();
  } catch (error) {
    if (!isFault(error, 'STORE_SYNC')) throw error;
    await put();
  }
}
