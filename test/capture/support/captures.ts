/** Captures on a stand-in, set up as the tests need them. Not a suite. */
import { join } from 'node:path';
import pino from 'pino';
import { CbtCapture } from '../../../daemon/capture/cbt-capture.ts';
import { nodeClock } from '../../../host/node/clock.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import type { StandIn } from './storage-daemon.ts';

export const groupId = '0123456789abcdef0123456789abcdef';
const mib = 1024 * 1024;

export interface MadeCaptureOptions { readonly qmpPath?: string; readonly budgetBytes?: number; readonly freeBytesMin?: number; readonly folder?: string; readonly group?: string; readonly passStallLimitMs?: number }

export function makeCapture(standIn: StandIn, options: MadeCaptureOptions = {}): CbtCapture {
  return new CbtCapture({
    groupId: options.group ?? groupId, qmpPath: options.qmpPath ?? standIn.qmpPath, clock: nodeClock, log: pino({ level: 'silent' }),
    spool: { folder: options.folder ?? join(standIn.folder, 'spool'), budgetBytes: options.budgetBytes ?? 256 * mib, freeBytesMin: options.freeBytesMin ?? 0 },
    ...(options.passStallLimitMs === undefined ? {} : { passStallLimitMs: options.passStallLimitMs }),
    storageDaemonDisks: standIn.disks.map(({ name, node }) => ({ name, node })),
  });
}

/** Bitmaps as a full pass leaves them, for disks that are known to be all zero. */
export async function plantBitmaps(qmp: QmpConnection, nodes: readonly { readonly node: string; readonly isPersistent: boolean }[], point = '1-0', group = groupId): Promise<void> {
  await qmp.execute('transaction', {
    actions: nodes.map(({ node, isPersistent }, index) => ({
      type: 'block-dirty-bitmap-add', data: { node, name: `afterimage-${group.slice(0, 16)}-${index}-${point}`, granularity: 65536, persistent: isPersistent },
    })),
  });
}

export const plantOn = (standIn: StandIn, point?: string): Promise<void> => plantBitmaps(standIn.qmp, standIn.disks.map(({ node, format }) => ({ node, isPersistent: format === 'qcow2' })), point);

/** Everything in QEMU that bears our name. */
export async function ownObjects(qmp: QmpConnection): Promise<string[]> {
  const nodes = await qmp.execute<{ 'node-name': string; 'dirty-bitmaps'?: { name?: string }[] }[]>('query-named-block-nodes', { flat: true });
  const jobs = await qmp.execute<{ id: string }[]>('query-jobs');
  const exported = await qmp.execute<{ id: string }[]>('query-block-exports');
  return [...nodes.map((node) => node['node-name']), ...nodes.flatMap((node) => (node['dirty-bitmaps'] ?? []).map(({ name }) => name ?? '')), ...jobs.map(({ id }) => id), ...exported.map(({ id }) => id)]
    .filter((name) => name.startsWith('afterimage'));
}
