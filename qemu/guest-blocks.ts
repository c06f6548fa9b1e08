/**
 * What the QEMU of a guest that runs here says of its disks, and the few commands by which its data is brought home from an
 * NBD view (`block-stream`). Each call is one short exchange over a monitor of its own; it remembers nothing.
 */
import { isFault } from '../journal/fault.ts';
import { backingNode, diskNode } from './boot-disks.ts';
import type { QmpConnection } from './qmp.ts';

export interface GuestDiskLook {
  readonly disk: number;
  readonly isBacked: boolean;
  readonly job: { readonly doneBytes: number; readonly totalBytes: number; readonly isStopped: boolean } | null;
}

export interface GuestLook { readonly runState: string; readonly disks: readonly GuestDiskLook[] }

interface NamedNode { readonly 'node-name': string; readonly drv: string; readonly file: string; readonly backing_file?: string }
interface BlockJob { readonly device: string; readonly len: number; readonly offset: number; readonly paused: boolean; readonly 'io-status': string }

export async function lookAtGuest(qmp: QmpConnection, disks: readonly number[]): Promise<GuestLook> {
  const { status } = await qmp.execute<{ status: string }>('query-status');
  const jobs = await qmp.execute<BlockJob[]>('query-block-jobs');
  // After the jobs: a job that ended in between leaves its disk without one and not backed, which is so.
  const nodes = await qmp.execute<NamedNode[]>('query-named-block-nodes', { flat: true });
  return {
    runState: status,
    disks: disks.map((disk) => {
      const job = jobs.find(({ device }) => device === jobId(disk));
      const node = nodeOf(nodes, disk);
      return {
        disk,
        // A device that was unplugged took its node along: nothing is left to bring home.
        isBacked: node?.backing_file !== undefined,
        job: job === undefined ? null : { doneBytes: job.offset, totalBytes: job.len, isStopped: job.paused || job['io-status'] !== 'ok' },
      };
    }),
  };
}

export async function runStateOf(qmp: QmpConnection): Promise<string> {
  return (await qmp.execute<{ status: string }>('query-status')).status;
}

/** A request that fails stops the job; it is resumed when the server is back. */
export async function streamHome(qmp: QmpConnection, disk: number): Promise<void> {
  const nodes = await qmp.execute<NamedNode[]>('query-named-block-nodes', { flat: true });
  await qmp.execute('block-stream', { 'job-id': jobId(disk), device: nodeOf(nodes, disk)?.['node-name'] ?? diskNode({ disk }), 'on-error': 'stop' });
}

export async function resumeStream(qmp: QmpConnection, disk: number): Promise<void> {
  await qmp.execute('block-job-resume', { device: jobId(disk) });
}

export async function continueGuest(qmp: QmpConnection): Promise<void> {
  await qmp.execute('cont');
}

/** A guest that was started and did not run yet (`-S`) runs when it resolves; any other is left as it is. */
export async function runReady(qmp: QmpConnection): Promise<void> {
  if (await runStateOf(qmp) === 'prelaunch') await qmp.execute('cont');
}

/** The node of a view that nothing reads from any more, and with it its connection. One that is gone is fine. */
export async function dropView(qmp: QmpConnection, disk: number): Promise<void> {
  try {
    await qmp.execute('blockdev-del', { 'node-name': backingNode({ disk }) });
  } catch (error) {
    if (!isFault(error, 'QMP_COMMAND')) throw error;
    const nodes = await qmp.execute<NamedNode[]>('query-named-block-nodes', { flat: true });
    if (nodes.some((one) => one['node-name'] === backingNode({ disk }))) throw error;
  }
}

/** By the name that we gave it; where libvirt or Proxmox VE started the guest the names are theirs, and the image tells it by its own (replica-target, `overlayPath`, `launchPve`). */
function nodeOf(nodes: readonly NamedNode[], disk: number): NamedNode | undefined {
  return nodes.find((one) => one['node-name'] === diskNode({ disk })) ?? nodes.find(({ drv, file }) => drv === 'qcow2' && (file.endsWith(`/${diskNode({ disk })}.qcow2`) || new RegExp(`/vm-\\d+-disk-${disk}\\.qcow2$`).test(file)));
}

function jobId(disk: number): string {
  return `home-${diskNode({ disk })}`;
}
