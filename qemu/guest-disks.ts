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

/** The disks of a QEMU to protect, and its other block devices with why they are none. */
export async function takeDiskInventory(qmp: QmpConnection): Promise<DiskInventory> {
  // Asked in one go: QEMU answers in order, and little can change between.
  const [blocks, lookup] = await Promise.all([qmp.execute<BlockInfo[]>('query-block'), lookUpNodes(qmp)]);
  const types = await Promise.all(blocks.map(async ({ qdev }) => [qdev ?? '', qdev?.startsWith('/') === true ? await typeOf(qmp, qdev) : ''] as const));
  return planGuestDisks(blocks, lookup, new Map(types));
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
  const [nodes, graph] = await Promise.all([
    qmp.execute<NodeInfo[]>('query-named-block-nodes', { flat: true }),
    askOrNull<BlockGraph>(qmp, 'x-debug-query-block-graph'),
  ]);
  return new NodeLookup(nodes, graph);
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
