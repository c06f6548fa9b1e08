/**
 * Steady random writes of 64 KiB that do not compress, as fast as the target applies them: bytes that the target writes (journal,
 * history, replica, index, catalog, merges) for each byte that changed, and the rate, against fio with the same pattern on the same disk.
 */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Benchmark } from './benchmark.ts';
import { ratioOf, rounded, spreadOf } from './figures.ts';
import type { Site } from './site.ts';
import { told } from './told.ts';

export interface ApplyFacts { readonly groupsFolder: string; readonly sizeBytes: number; readonly pointBytes: number; readonly writeBytes: number; readonly seconds: number }

export interface Applied {
  readonly seconds: number;
  readonly points: number;
  readonly changedBytes: number;
  readonly writtenBytes: number;
  /** Of the written ones: history that came of merging. */
  readonly mergedBytes: number;
  readonly historyFiles: number;
}

/** The project's own limit, bytes written for one changed. */
const amplificationMax = 4;
const writeBytes = 64 * 1024;
const pointBytes = 64 * writeBytes;

export const apply: Benchmark = async ({ site, say, arguments: { sizeBytes, loadSeconds, runs } }) => {
  const figures: Record<'amplification' | 'merges' | 'rate' | 'raw', number[]> = { amplification: [], merges: [], rate: [], raw: [] };
  for (let round = 1; round <= runs; round++) {
    const groupsFolder = `${site.freshPath('apply')}/groups`;
    await mkdir(dirname(groupsFolder));
    const applied = await told<Applied>(site, 'applying-target', { groupsFolder, sizeBytes, pointBytes, writeBytes, seconds: loadSeconds } satisfies ApplyFacts);
    await rm(dirname(groupsFolder), { recursive: true });
    figures.amplification.push(applied.writtenBytes / applied.changedBytes);
    figures.merges.push(applied.mergedBytes / applied.changedBytes);
    figures.rate.push(applied.changedBytes / 1e6 / applied.seconds);
    figures.raw.push(await rawRate(site, sizeBytes, loadSeconds));
    say(`round ${round}: ${applied.points} points, ${figures.amplification.at(-1)!.toFixed(2)} bytes written for one, ${figures.rate.at(-1)!.toFixed(0)} MB/s; fio ${figures.raw.at(-1)!.toFixed(0)} MB/s`);
  }
  const limit = spreadOf([amplificationMax]);
  const [amplification, rate, raw] = [spreadOf(figures.amplification, 2), spreadOf(figures.rate, 1), spreadOf(figures.raw, 1)];
  return {
    name: 'apply', unit: 'bytes written per byte changed', ours: amplification.median, peer: amplificationMax, ratio: ratioOf(amplification, limit, true), runs,
    extras: {
      of_merges: spreadOf(figures.merges, 2).median, rate_mb_per_s: rate.median, fio_mb_per_s: raw.median, rate_to_fio: rounded(rate.median / raw.median, 3),
      image_bytes: sizeBytes, write_bytes: writeBytes, point_bytes: pointBytes, seconds: loadSeconds, amplification, rate, fio: raw,
    },
    rows: [
      { what: 'written per byte changed', unit: 'bytes', spread: amplification, ratio: ratioOf(amplification, limit, true) },
      { what: 'applied', unit: 'MB/s', spread: rate, ratio: ratioOf(rate, raw, false) }, { what: 'fio, the same pattern', unit: 'MB/s', spread: raw },
    ],
    notes: [
      `peer: at most ${amplificationMax} that the project asks of itself; the row "applied" is against fio`,
      'written: all bytes that the process of the store gave to write calls; time runs 60 times faster in it, a point a minute, so that hours are merged within the run',
      'rate: with at most 16 points waiting to be applied, until the last one was. fio: random writes of 64 KiB to a file of the same size, fdatasync after every 64',
    ],
  };
};

async function rawRate(site: Site, sizeBytes: number, seconds: number): Promise<number> {
  const [file, output] = [site.freshPath('raw'), site.freshPath('fio')];
  await site.run('fio', [
    '--name=raw', `--filename=${file}`, '--ioengine=psync', '--rw=randwrite', `--bs=${writeBytes}`, `--size=${sizeBytes}`, '--overwrite=1', '--norandommap', '--randrepeat=0', '--refill_buffers',
    `--fdatasync=${pointBytes / writeBytes}`, '--time_based', `--runtime=${seconds}`, '--output-format=json', `--output=${output}`,
  ], 'fio');
  const text = await readFile(output, 'utf8');
  await rm(file);
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { readonly jobs: readonly { readonly error: number; readonly write: { readonly bw_bytes: number } }[] };
  if (jobs[0]?.error !== 0) throw new Error(`fio failed: ${text.slice(0, 400)}`);
  return jobs[0].write.bw_bytes / 1e6;
}
