/**
 * A write log as nodes of QEMU, and the ways to put it into the path of a guest's disk and to take it out again. From below: the
 * spool's file, bounded by `raw`; a quorum that no failure gets through, whose second child is a `null-co` (see delta-target.ts:
 * past its bound a log breaks, the guest's write does not); the `blklogwrites` filter, between the device and the node that it had.
 *
 * Holds no state: what is in the path is asked of QEMU each time.
 */
import { Fault } from '../../../journal/fault.ts';
import type { GuestDisk } from '../../../qemu/guest-disks.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import { queryNodes, queryObjects, unlessRefused } from '../guest-objects.ts';
import { nodeName, ownPrefix, parseLogNode, type NodePart } from '../object-names.ts';
import { logSectorBytes } from './log-stretch.ts';

/** Everything that was written to a log's node since it was made. */
export const allBitmap = `${ownPrefix}log-all`;
/** The same, up to a cut. */
export const cutBitmap = `${ownPrefix}log-cut`;
/** QEMU writes the superblock each time that so many entries were logged, and with each flush; the first is dear (measured: 23,000 writes a second became 800 to 2,700 at an interval of 1). */
const superblockIntervalMax = 2 ** 32 - 1;

/** Parts of a log that a write of the guest goes through. */
const inPath: ReadonlySet<string> = new Set(['log-filter', 'log-under']);

export interface LogPlace { readonly groupId: string; readonly stamp: string; readonly disk: number }


export function logNode(place: LogPlace, part: NodePart = 'log'): string {
  return nodeName(place.groupId, place.stamp, place.disk, part);
}

/** Makes the log's nodes and its filter over `under`, in nobody's path yet. On a throw, {@link removeLogNodes} finds what was made. */
export async function addLog(qmp: QmpConnection, place: LogPlace, under: string, path: string, capBytes: number): Promise<void> {
  const name = (part: NodePart): string => logNode(place, part);
  const file = { driver: 'file', 'node-name': name('log-file'), filename: path, locking: 'off', cache: { 'no-flush': true } };
  await qmp.execute('blockdev-add', {
    driver: 'quorum', 'node-name': name('log'), 'vote-threshold': 1, 'read-pattern': 'fifo',
    children: [
      { driver: 'raw', 'node-name': name('log-bound'), size: capBytes, file },
      { driver: 'null-co', 'node-name': name('log-null'), size: capBytes, 'read-zeroes': true },
    ],
  });
  await qmp.execute('block-dirty-bitmap-add', { node: name('log'), name: allBitmap, granularity: logSectorBytes });
  await qmp.execute('blockdev-add', {
    driver: 'blklogwrites', 'node-name': name('log-filter'), log: name('log'),
    // Not `file: under`: as it opens a driver that is none of a protocol, QEMU 7.2 puts a block backend on the node named there, to
    // probe it, and drains that, without the lock of the node's I/O thread (bdrv_open_inherit). With a request under way there, QEMU
    // aborts (seen: qemu_mutex_unlock_impl, at one in some thirty filters under load). `blkdebug` counts as a protocol, and its
    // child is named otherwise; without rules it passes everything on. The backend is then on it, where nothing is under way yet.
    file: { driver: 'blkdebug', 'node-name': name('log-under'), image: under, discard: 'unmap' },
    'log-sector-size': logSectorBytes, 'log-super-update-interval': superblockIntervalMax,
    // Whether a discard does anything is for the node beneath to say.
    discard: 'unmap',
  });
}

/** The disk's writes go to `node` from when this returns on; those under way have ended. Faults: QMP_COMMAND, GUEST_UNSUITED. */
export async function pointDisk(qmp: QmpConnection, disk: GuestDisk, node: string): Promise<void> {
  if (disk.qdev !== null) await qmp.execute('qom-set', { path: disk.qdev, property: 'drive', value: node });
  else await qmp.execute('blockdev-reopen', { options: [{ driver: 'throttle', 'throttle-group': await soleThrottleGroup(qmp, disk), 'node-name': disk.topNode, file: node }] });
}

/** A storage daemon has no devices to point elsewhere, but a throttle filter as the disk's uppermost node can be given another child. All its options have to be said again, and this one cannot be asked for. */
async function soleThrottleGroup(qmp: QmpConnection, { topNode, chain }: GuestDisk): Promise<string> {
  const groups = (await queryObjects(qmp)).filter(({ type }) => type === 'child<throttle-group>');
  if (chain.length === 0 || groups.length !== 1) throw new Fault('GUEST_UNSUITED', `a storage daemon’s disk gets a write log beneath a throttle filter, with the one throttle group that there is; ${topNode} has none`, { node: topNode, groups: groups.length });
  return groups[0]!.name;
}

/**
 * The filters of ours that the device writes to directly, from above, and the node beneath them. A filter with somebody else's node above it
 * (an external snapshot, a job's filter) is none of these: a device that is pointed past that node would lose what the node holds.
 */
export function loggedPath(disk: GuestDisk): { readonly filters: readonly string[]; readonly under: string } {
  const path = disk.qdev === null ? disk.chain : [disk.topNode, ...disk.chain];
  const count = path.findIndex((node) => !inPath.has(parseLogNode(node)?.part ?? ''));
  return { filters: path.slice(0, count).filter((node) => parseLogNode(node)?.part === 'log-filter'), under: path[count]! };
}

/** The filters of ours that a write of the device goes through before it reaches the disk, whatever else is above, between or beneath them. */
export function logFiltersOver({ topNode, chain, trackNode }: GuestDisk): string[] {
  const path = [topNode, ...chain];
  return path.slice(0, path.indexOf(trackNode)).filter((node) => parseLogNode(node)?.part === 'log-filter');
}

/**
 * An operator resizes the node that they know, beneath the log: QEMU tells neither the log's filter nor the device. Said again at
 * the device's node, it reaches both. What is refused (a job holds the disk) is for a later look.
 */
export async function followSizes(qmp: QmpConnection, disks: readonly GuestDisk[]): Promise<void> {
  const { nodes } = await queryNodes(qmp);
  for (const disk of disks) {
    const seenBytes = nodes.find(({ node }) => node === disk.topNode)?.sizeBytes;
    if (logFiltersOver(disk).length === 0 || seenBytes === undefined || seenBytes === disk.sizeBytes) continue;
    await unlessRefused(qmp.execute('block_resize', { 'node-name': disk.topNode, size: disk.sizeBytes }));
  }
}

/**
 * Takes all write logs of ours out of these disks, whoever put them in, and removes their nodes. Returns the nodes that would not go: something
 * of somebody else's stands upon them (an external snapshot that was taken meanwhile).
 */
export async function detachLogs(qmp: QmpConnection, disks: readonly GuestDisk[]): Promise<string[]> {
  // A device that is given another node is not told of another size.
  await followSizes(qmp, disks);
  for (const disk of disks) {
    const { filters, under } = loggedPath(disk);
    if (filters.length > 0) await unlessRefused(pointDisk(qmp, disk, under));
  }
  return removeLogNodes(qmp);
}

/** All nodes of logs that are in nobody's path, but for logs of these stamps. Returns those that would not go. */
export async function removeLogNodes(qmp: QmpConnection, keptStamps: ReadonlySet<string> = new Set()): Promise<string[]> {
  const { nodes } = await queryNodes(qmp);
  const left: string[] = [];
  // A filter holds its log; what lies beneath the log goes along with it.
  for (const part of ['log-filter', 'log'] as const) {
    for (const { node } of nodes) {
      const parsed = parseLogNode(node);
      if (parsed?.part !== part || keptStamps.has(parsed.stamp)) continue;
      if (await unlessRefused(qmp.execute('blockdev-del', { 'node-name': node })) !== null) left.push(node);
    }
  }
  return left;
}
