/** Captures of real lab guests, and what is checked of each point. Not a suite. */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import pino from 'pino';
import { CbtCapture } from '../../../daemon/capture/cbt-capture.ts';
import type { CaptureChoice, FullPassSink } from '../../../daemon/capture/capture.ts';
import { nodeClock } from '../../../host/node/clock.ts';
import type { PointId } from '../../../journal/point.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import { listGuestDisks } from '../../../qemu/guest-disks.ts';
import { groupId } from './captures.ts';
import type { Replica } from './replica.ts';

const mib = 1024 * 1024;
const zeroes = Buffer.alloc(mib);

export function captureGuest(folder: string, qmpPath: string, options: { readonly budgetBytes?: number; readonly spoolFolder?: string; readonly freeBytesMin?: number; readonly capture?: CaptureChoice } = {}): CbtCapture {
  return new CbtCapture({
    groupId, qmpPath, ...(options.capture === undefined ? {} : { capture: options.capture }), clock: nodeClock, log: pino({ level: 'silent' }),
    spool: { folder: options.spoolFolder ?? join(folder, 'spool'), budgetBytes: options.budgetBytes ?? 256 * mib, freeBytesMin: options.freeBytesMin ?? 0 },
  });
}

export function sinkInto(replica: Replica): FullPassSink {
  return {
    write: (disk, offset, buffer, headroomBytes) => {
      replica.write(disk, offset, buffer.subarray(headroomBytes));
      return Promise.resolve();
    },
    zero: (disk, offset, length) => {
      for (let done = 0; done < length; done += mib) replica.write(disk, offset + done, zeroes.subarray(0, Math.min(mib, length - done)));
      return Promise.resolve();
    },
  };
}

/** A full pass at full speed, from which `base` comes. */
export async function passWhole(capture: CbtCapture, replica: Replica, base: PointId = { term: 1, point: 0 }): Promise<void> {
  await capture.fullPass(sinkInto(replica), { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined });
  await capture.settlePass(base);
}

/** The disks as nodes, for backups of the test's own. */
export async function nodesOf(qmp: QmpConnection): Promise<{ node: string; sizeBytes: number }[]> {
  return (await listGuestDisks(qmp)).map(({ trackNode, sizeBytes }) => ({ node: trackNode, sizeBytes }));
}

/** The number that the guest's stamp writer put on a disk; it writes the same to each disk in turn, so they go down by at most one. */
export function stampOf(path: string): number {
  const bytes = Buffer.alloc(64);
  const file = openSync(path, 'r');
  readSync(file, bytes, 0, 64, 0);
  closeSync(file);
  return Number(/^AFSTAMP (\d{12})/.exec(bytes.toString('latin1'))?.[1] ?? 0);
}

/** Null when the disks were cut at one instant. */
export function stampFlaw(paths: readonly string[]): string | null {
  const stamps = paths.map(stampOf);
  const isOrdered = stamps.every((stamp, index) => index === 0 || stamp <= stamps[index - 1]!) && stamps[0]! - stamps.at(-1)! <= 1;
  return isOrdered ? null : `stamps ${stamps.join(', ')}`;
}
