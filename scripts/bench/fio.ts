/** The load: fio's own NBD engine, random writes (of 4 KiB unless told otherwise), 16 under way. */
import { readFile, rm } from 'node:fs/promises';
import type { Site } from './site.ts';

export interface LoadOptions {
  readonly uri: string;
  /** From the start of the disk. */
  readonly spanBytes: number;
  readonly seconds: number;
  /** Absent: as many as go. */
  readonly iopsMax?: number;
  /** Of one write; 4 KiB when absent. */
  readonly writeBytes?: number;
}

export interface LoadFigures { readonly iops: number; readonly p50Us: number; readonly p99Us: number; readonly maxUs: number }

interface FioOutput {
  readonly jobs: readonly {
    readonly error: number;
    readonly write: { readonly iops: number; readonly clat_ns: { readonly max: number; readonly percentile: Readonly<Record<string, number>> } };
  }[];
}

export async function runLoad(site: Site, { uri, spanBytes, seconds, iopsMax, writeBytes = 4096 }: LoadOptions): Promise<LoadFigures> {
  const output = site.freshPath('fio');
  await site.run('fio', [
    '--name=load', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', `--bs=${writeBytes}`, '--iodepth=16', `--size=${spanBytes}`, '--norandommap', '--randrepeat=0',
    '--time_based', `--runtime=${seconds}`, ...(iopsMax === undefined ? [] : [`--rate_iops=${iopsMax}`]), '--output-format=json', `--output=${output}`,
  ], 'fio');
  const text = await readFile(output, 'utf8');
  await rm(output);
  // fio may say a line of its own before the object.
  const job = (JSON.parse(text.slice(text.indexOf('{'))) as FioOutput).jobs[0];
  if (job === undefined || job.error !== 0) throw new Error(`fio failed: ${text.slice(0, 400)}`);
  const { iops, clat_ns: { max, percentile } } = job.write;
  return { iops, p50Us: percentile['50.000000']! / 1000, p99Us: percentile['99.000000']! / 1000, maxUs: max / 1000 };
}
