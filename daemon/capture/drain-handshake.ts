/**
 * Makes QEMU's drain of a disk wait until the I/O thread that serves the disk has come round its loop. QEMU 7.2 itself does not
 * wait for that: the thread may be held at its lock, about to take the guest's next requests, for the whole of a transaction, and then
 * takes them before it starts the backup job that the transaction made. Such a write meets a copy-before-write filter that still
 * preserves everything; when the job then sets the filter's bitmap (block/backup.c, backup_init_bcs_bitmap) a block that is being preserved is
 * marked again, and the next to copy it ends QEMU (seen, once in some 700 cuts under load: the assertion `!reqlist_find_conflict` in
 * block/block-copy.c).
 *
 * A drain waits for coroutines that a driver runs in the thread at each drain (block/io.c, bdrv_drain_invoke), and of all drivers of
 * QEMU 7.2 two have any: `throttle`, which ends QEMU when it is opened upon a node that an I/O thread serves (throttle_open), and
 * `qed`. So for the time of a cut's transaction each disk gets an empty QED image above it: in nobody's path, read by nobody. The drain that begins the
 * job meets it twice (bdrv_insert_node drains again), the second time when the thread has left behind whatever it had found to
 * do before the first; so nothing of the guest's can come between drain and job.
 */
import type { QmpConnection } from '../../qemu/qmp.ts';
import { nodeName } from './object-names.ts';
import type { Spool, SpoolFile } from './spool.ts';

export interface HandshakeContext {
  readonly qmp: QmpConnection;
  readonly spool: Spool;
  readonly groupId: string;
  readonly owner: { readonly uid: number; readonly gid: number };
}

/** An empty QED image: its header and a first-level table that refers to nothing (QEMU's docs/interop/qed_spec.rst). */
const shakeBytes = 12 * 1024;
const clusterBytes = 4096;

function makeQed(): Buffer {
  const image = Buffer.alloc(shakeBytes);
  image.write('QED\0', 0, 'latin1');
  image.writeUInt32LE(clusterBytes, 4);
  image.writeUInt32LE(2, 8); // clusters of a table: QEMU takes no table of one
  image.writeUInt32LE(1, 12); // clusters of the header
  image.writeBigUInt64LE(BigInt(clusterBytes), 40); // where the first-level table begins
  image.writeBigUInt64LE(BigInt(clusterBytes), 48); // of the disk: what lies beneath may be longer
  return image;
}

/** Faults: QMP_COMMAND, SPOOL_FULL. On a throw, `removeNodes` finds what was made. */
export async function addHandshakes({ qmp, spool, owner, groupId }: HandshakeContext, stamp: string, disks: readonly { readonly disk: number; readonly trackNode: string }[]): Promise<SpoolFile> {
  const file = await spool.createImage(`${stamp}-shake`, { capBytes: shakeBytes, pieces: [{ at: 0, bytes: makeQed() }] }, owner);
  try {
    for (const { disk, trackNode } of disks) {
      await qmp.execute('blockdev-add', {
        driver: 'qed', 'node-name': nodeName(groupId, stamp, disk, 'shake'), 'read-only': true, backing: trackNode,
        file: { driver: 'file', 'node-name': nodeName(groupId, stamp, disk, 'shake-file'), filename: file.path, locking: 'off', 'read-only': true },
      });
    }
    return file;
  } catch (error) {
    await file.remove();
    throw error;
  }
}

/** What {@link addHandshakes} made. Faults: QMP_COMMAND. */
export async function removeHandshakes({ qmp, groupId }: HandshakeContext, stamp: string, disks: readonly { readonly disk: number }[], file: SpoolFile): Promise<void> {
  for (const { disk } of disks) await qmp.execute('blockdev-del', { 'node-name': nodeName(groupId, stamp, disk, 'shake') });
  await file.remove();
}
