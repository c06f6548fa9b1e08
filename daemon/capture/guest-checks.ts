/** What is asked of a QEMU before anything is done to it. */
import { Fault } from '../../journal/fault.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { describeProbe } from './delta-target.ts';
import { queryObjects, unlessRefused } from './guest-objects.ts';
import { nodeName } from './object-names.ts';

/** States of `query-migrate` in which QEMU takes no new jobs or is about to hand the disks over. */
const migrating: ReadonlySet<string> = new Set(['setup', 'active', 'postcopy-active', 'postcopy-paused', 'postcopy-recover', 'pre-switchover', 'device', 'wait-unplug']);

/** Fault GUEST_CHANGED. Not for a storage daemon, which does not migrate. */
export async function refuseMigration(qmp: QmpConnection): Promise<void> {
  const { status } = await qmp.execute<{ readonly status?: string }>('query-migrate');
  if (status !== undefined && migrating.has(status)) throw new Fault('GUEST_CHANGED', `the guest is being migrated (${status}): no cut until that is over`, { status });
}

/** Fault GUEST_UNSUITED: this QEMU has no quorum. */
export async function probeQuorum(qmp: QmpConnection, groupId: string, stamp: string): Promise<void> {
  const refused = await unlessRefused(qmp.execute('blockdev-add', describeProbe(groupId, stamp)));
  if (refused !== null) throw new Fault('GUEST_UNSUITED', `this QEMU cannot keep a full spool from the guest: ${refused.message}`, {}, refused);
  await qmp.execute('blockdev-del', { 'node-name': nodeName(groupId, stamp, 0, 'probe') });
}

/** Whether any thread but QEMU's main loop serves disks: which disk it serves cannot be asked of every QEMU. */
export async function hasIoThreads(qmp: QmpConnection, isStorageDaemon: boolean): Promise<boolean> {
  if (!isStorageDaemon) return (await qmp.execute<readonly unknown[]>('query-iothreads')).length > 0;
  return (await queryObjects(qmp)).some(({ type }) => type === 'child<iothread>');
}
