/**
 * What of ours is inside a QEMU just now: bitmaps, nodes, jobs, exports, by the prefix of their names; and the ways to take
 * each of them out. Holds no state: every answer is QEMU's own, asked anew, as an earlier life of this daemon, another
 * client or QEMU itself may have changed it. Never touches what does not begin with our prefix.
 */
import { Fault, isFault } from '../../journal/fault.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { JobWatch } from './job-watch.ts';
import { ownPrefix, parseLogNode } from './object-names.ts';

export interface FoundBitmap {
  readonly node: string;
  readonly name: string;
  /** Bytes that it holds dirty. */
  readonly count: number;
  readonly granularity: number;
  readonly isRecording: boolean;
  readonly isBusy: boolean;
  readonly isInconsistent: boolean;
}

export interface FoundNode { readonly node: string; readonly driver: string; readonly sizeBytes: number; readonly isReadOnly: boolean }

export interface GuestNodes {
  readonly nodes: readonly FoundNode[];
  readonly bitmaps: readonly FoundBitmap[];
  /** Those on nodes of write logs, which say nothing of a disk. */
  readonly logBitmaps: readonly FoundBitmap[];
}

interface RawNode {
  readonly 'node-name'?: string;
  readonly drv: string;
  readonly ro: boolean;
  readonly image: { readonly 'virtual-size': number };
  readonly 'dirty-bitmaps'?: readonly { readonly name?: string; readonly count: number; readonly granularity: number; readonly recording: boolean; readonly busy: boolean; readonly inconsistent?: boolean }[];
}

export interface RawJob { readonly id: string; readonly type: string; readonly status: string; readonly 'current-progress': number; readonly 'total-progress': number; readonly error?: string }

/** What was made by name in this QEMU besides devices and nodes, ours or not. */
export async function queryObjects(qmp: QmpConnection): Promise<readonly { readonly name: string; readonly type: string }[]> {
  try {
    return await qmp.execute('qom-list', { path: '/objects' });
  } catch (error) {
    // A storage daemon that was given none has no list of them.
    if (isFault(error, 'QMP_COMMAND')) return [];
    throw error;
  }
}

/** All nodes and all named bitmaps, ours or not. */
export async function queryNodes(qmp: QmpConnection): Promise<GuestNodes> {
  const raw = await qmp.execute<readonly RawNode[]>('query-named-block-nodes', { flat: true });
  const nodes: FoundNode[] = [];
  const [bitmaps, logBitmaps]: [FoundBitmap[], FoundBitmap[]] = [[], []];
  for (const { 'node-name': node, drv, ro, image, 'dirty-bitmaps': dirty } of raw) {
    if (node === undefined) continue;
    nodes.push({ node, driver: drv, sizeBytes: image['virtual-size'], isReadOnly: ro });
    const list = parseLogNode(node) === undefined ? bitmaps : logBitmaps;
    for (const { name, count, granularity, recording, busy, inconsistent } of dirty ?? []) {
      // QEMU's own jobs use bitmaps without names.
      if (name !== undefined && name !== '') list.push({ node, name, count, granularity, isRecording: recording, isBusy: busy, isInconsistent: inconsistent === true });
    }
  }
  return { nodes, bitmaps, logBitmaps };
}

export async function queryOwnJobs(qmp: QmpConnection, prefix: string = ownPrefix): Promise<RawJob[]> {
  const jobs = await qmp.execute<readonly RawJob[]>('query-jobs');
  return jobs.filter(({ id }) => id.startsWith(prefix));
}

/** Ends all jobs of ours whose names begin so, whatever they are doing, and forgets them. */
export async function removeJobs(qmp: QmpConnection, watch: JobWatch, prefix: string = ownPrefix): Promise<void> {
  for (const job of await queryOwnJobs(qmp, prefix)) {
    watch.see(job);
    if (job.status !== 'concluded') {
      // Refused when the job is just ending by itself: then it concludes all the same.
      await unlessRefused(qmp.execute('job-cancel', { id: job.id }));
      await watch.until(job.id, ['concluded']);
    }
    await watch.dismiss(job.id);
  }
}

/** Takes out all nodes of ours whose names begin so, but for those of write logs, which hold what a disk wrote; returns those that would not go. */
export async function removeNodes(qmp: QmpConnection, prefix: string = ownPrefix): Promise<string[]> {
  for (;;) {
    const before = (await queryNodes(qmp)).nodes.filter(({ node }) => node.startsWith(prefix) && parseLogNode(node) === undefined);
    if (before.length === 0) return [];
    // Only the uppermost node of each target is the monitor's; those beneath are refused, and go along with it.
    let removed = 0;
    for (const { node } of before) if (await unlessRefused(qmp.execute('blockdev-del', { 'node-name': node })) === null) removed += 1;
    if (removed === 0) return before.map(({ node }) => node);
  }
}

export async function removeExports(qmp: QmpConnection): Promise<void> {
  const exported = await qmp.execute<readonly { readonly id: string }[]>('query-block-exports');
  for (const { id } of exported) if (id.startsWith(ownPrefix)) await unlessRefused(qmp.execute('block-export-del', { id, mode: 'hard' }));
}

/** Jobs first, as they hold nodes; bitmaps and write logs are for the caller to judge. */
export async function removeAllButBitmapsAndLogs(qmp: QmpConnection, watch: JobWatch): Promise<void> {
  await removeJobs(qmp, watch);
  await removeExports(qmp);
  const left = await removeNodes(qmp);
  if (left.length > 0) throw new Fault('GUEST_CHANGED', `nodes of ours would not go: ${left.join(', ')}`, { left });
}

/** Everything in QEMU that bears our name, for people to read. */
export async function listOwn(qmp: QmpConnection): Promise<string[]> {
  const { nodes, bitmaps, logBitmaps } = await queryNodes(qmp);
  const exported = await qmp.execute<readonly { readonly id: string }[]>('query-block-exports');
  return [
    ...nodes.map(({ node }) => node), ...(await queryOwnJobs(qmp)).map(({ id }) => id), ...exported.map(({ id }) => id),
    ...[...bitmaps, ...logBitmaps].map(({ node, name }) => `${name} on ${node}`),
  ].filter((name) => name.startsWith(ownPrefix));
}

/** Removes bitmaps one by one, as one that would not go must not keep the others. Returns QEMU's words for those. */
export async function removeBitmaps(qmp: QmpConnection, bitmaps: readonly Pick<FoundBitmap, 'node' | 'name'>[]): Promise<string[]> {
  const refused: string[] = [];
  for (const { node, name } of bitmaps) {
    const fault = await unlessRefused(qmp.execute('block-dirty-bitmap-remove', { node, name }));
    if (fault !== null) refused.push(`${name} on ${node}: ${fault.message}`);
  }
  return refused;
}

/** Null when QEMU did it, the refusal when it would not; any other failure is thrown. */
export async function unlessRefused(doing: Promise<unknown>): Promise<Fault | null> {
  try {
    await doing;
    return null;
  } catch (error) {
    if (isFault(error, 'QMP_COMMAND')) return error;
    throw error;
  }
}
