/**
 * Asks a QEMU or a qemu-storage-daemon for its disks. Changes nothing there, and decides nothing: the decision is
 * disk-inventory-plan.ts.
 */
import { isFault } from '../journal/fault.ts';
import {
  NodeLookup, planGuestDisks, planNodeDisks, type BlockGraph, type BlockInfo, type DiskInventory, type GuestDisk, type NodeInfo,
} from './disk-inventory-plan.ts';
import type { QmpConnection } from './qmp.ts';

export type { DiskInventory, GuestDisk, SkippedDisk } from './disk-inventory-plan.ts';

/** A job of somebody else that begins or ends between two answers makes them disagree; so many in a row do not. */
const looksMax = 20;

/** The disks of a QEMU to protect, and its other block devices with why they are none. */
export async function takeDiskInventory(qmp: QmpConnection): Promise<DiskInventory> {
  const { blocks, lookup } = await lookAtRest(qmp);
  const types = await Promise.all(blocks.map(async ({ qdev }) => [qdev ?? '', qdev?.startsWith('/') === true ? await typeOf(qmp, qdev) : ''] as const));
  return planGuestDisks(blocks, lookup, new Map(types));
}

/** No one answer of QEMU 7.2 holds devices, nodes and edges together. They are one instant's when the first two are the same before and after. */
async function lookAtRest(qmp: QmpConnection): Promise<{ readonly blocks: readonly BlockInfo[]; readonly lookup: NodeLookup }> {
  for (let look = 1; ; look += 1) {
    // Asked in one go: QEMU answers in order, and little can change between.
    const [blocks, nodes, graph, nodesAfter, blocksAfter] = await Promise.all([
      qmp.execute<BlockInfo[]>('query-block'), askNodes(qmp), askGraph(qmp), askNodes(qmp), qmp.execute<BlockInfo[]>('query-block'),
    ]);
    const isAtRest = describeBlocks(blocks) === describeBlocks(blocksAfter) && describeNodes(nodes) === describeNodes(nodesAfter);
    if (isAtRest || look === looksMax) return { blocks, lookup: new NodeLookup(nodes, graph) };
  }
}

/** Node names that QEMU makes up are never used twice in its life. */
function describeBlocks(blocks: readonly BlockInfo[]): string {
  return JSON.stringify(blocks.map(({ device, qdev, inserted }) => [device, qdev, inserted?.['node-name']]));
}

function describeNodes(nodes: readonly NodeInfo[]): string {
  return JSON.stringify(nodes.map((node) => node['node-name']).sort());
}

/** As {@link takeDiskInventory}, the disks alone. */
export async function listGuestDisks(qmp: QmpConnection): Promise<readonly GuestDisk[]> {
  return (await takeDiskInventory(qmp)).disks;
}

/** A storage daemon knows nodes, not disks: the caller says which nodes are the disks. What is not there or not writable is in `skipped`. */
export async function takeStorageDaemonInventory(qmp: QmpConnection, wanted: readonly { readonly name: string; readonly node: string }[]): Promise<DiskInventory> {
  return planNodeDisks(wanted, await lookUpNodes(qmp));
}

/** As {@link takeStorageDaemonInventory}, the disks alone. */
export async function listStorageDaemonDisks(qmp: QmpConnection, wanted: readonly { readonly name: string; readonly node: string }[]): Promise<readonly GuestDisk[]> {
  return (await takeStorageDaemonInventory(qmp, wanted)).disks;
}

/** The nodes and which lies beneath which. */
export async function lookUpNodes(qmp: QmpConnection): Promise<NodeLookup> {
  return new NodeLookup(...await Promise.all([askNodes(qmp), askGraph(qmp)]));
}

function askNodes(qmp: QmpConnection): Promise<NodeInfo[]> {
  return qmp.execute<NodeInfo[]>('query-named-block-nodes', { flat: true });
}

function askGraph(qmp: QmpConnection): Promise<BlockGraph | null> {
  return askOrNull<BlockGraph>(qmp, 'x-debug-query-block-graph');
}

async function typeOf(qmp: QmpConnection, path: string): Promise<string> {
  return (await askOrNull<string>(qmp, 'qom-get', { path, property: 'type' })) ?? '';
}

/** Null when QEMU refuses the question (an unknown command, a property that is not there). */
export async function askOrNull<T>(qmp: QmpConnection, command: string, args?: Readonly<Record<string, unknown>>): Promise<T | null> {
  try {
    return await qmp.execute<T>(command, args);
  } catch (error) {
    if (isFault(error, 'QMP_COMMAND')) return null;
    throw error;
  }
}
