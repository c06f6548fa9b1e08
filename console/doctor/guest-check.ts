/** `doctor --qmp PATH`: whether that guest can be protected. Asks its QEMU, changes nothing in it. */
import { stat } from 'node:fs/promises';
import { isFault } from '../../journal/fault.ts';
import { probeFeatures, unsuited } from '../../qemu/features.ts';
import { takeDiskInventory } from '../../qemu/guest-disks.ts';
import { connectMonitor } from '../../qemu/connect-guest.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { findAgentChannel } from '../../qemu/agent-channel.ts';
import { formatBytes, printable } from '../render/units.ts';
import { judgeChannel } from './agent-check.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';

/** `holder`: the name under which a running source of this host protects it already; its connection is the only one that QEMU takes. */
export function guestCheck(qmpPath: string, holder: string | null): Check {
  return {
    name: `guest ${qmpPath}`,
    run: async () => {
      if (holder !== null) return ok(`protected by the source that runs here, as ${holder}`);
      try {
        const qmp = await connectMonitor(qmpPath);
        try {
          return await judge(qmp);
        } finally {
          qmp.close();
        }
      } catch (error) {
        if (!isFault(error)) throw error;
        return fail(error.message, 'Give the guest a QMP socket for us alone (-qmp unix:PATH,server=on,wait=off), which this user may open.');
      }
    },
  };
}

export function socketModeCheck(qmpPath: string): Check {
  return {
    name: `socket ${qmpPath}`,
    run: async () => {
      const found = await stat(qmpPath).catch((error: NodeJS.ErrnoException) => error);
      if (found instanceof Error) return fail(found.code === 'ENOENT' ? 'it is not there' : found.message, 'Name the path of the guest’s QMP socket; start the guest.');
      if (!found.isSocket()) return fail('it is no socket', 'Name the path of the guest’s QMP socket.');
      const mode = (found.mode & 0o777).toString(8);
      return (found.mode & 0o002) === 0 ? ok(`owner ${found.uid}, mode ${mode}`) : warn(`everybody may connect (mode ${mode})`, 'Whoever can connect commands the guest: chmod o-w, or put it in a private folder.');
    },
  };
}

async function judge(qmp: QmpConnection): Promise<Finding> {
  const features = await probeFeatures(qmp);
  const { major, minor, micro } = features.version;
  const version = `QEMU ${major}.${minor}.${micro}`;
  const reasons = unsuited(features);
  if (reasons.length > 0) return fail(`${version}: ${reasons.join('; ')}`, 'Start the guest with a QEMU that has them.');
  if (features.isStorageDaemon) return ok(`${version}, a storage daemon: name its nodes with --storage-daemon-disk`);
  const { disks, skipped } = await takeDiskInventory(qmp);
  const left = skipped.map(({ name, reason }) => `${printable(name)} (${printable(reason)})`);
  const shown = disks.map(({ name, driver, sizeBytes, isBitmapPersistable }) => `${printable(name)} (${driver}, ${formatBytes(sizeBytes)}${isBitmapPersistable ? '' : ', resync after each restart of the guest'})`);
  if (disks.length === 0) return fail(`${version}: no disk that can be protected${left.length === 0 ? '' : `; not ${left.join(', ')}`}`, 'Attach its disks as virtio-blk or SCSI with qcow2 or raw images.');
  const agent = await judgeChannel(await findAgentChannel(qmp));
  const found = `${version}: ${shown.join(', ')}`;
  if (left.length === 0) return { ...agent, found: `${found}; ${agent.found}` };
  return warn(`${found}; not ${left.join(', ')}; ${agent.found}`, `Those will not be at the target: see whether the guest needs them. ${agent.advice}`.trimEnd());
}
