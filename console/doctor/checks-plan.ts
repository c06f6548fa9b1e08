/** Which checks a host needs: of the machine always, of what its configs name, of the guests that are asked about. Pure. */
import { isAbsolute } from 'node:path';
import type { Config } from '../config/config.ts';
import type { HostFacts } from './binaries.ts';
import type { Check } from './check.ts';
import { agentCheck } from './agent-check.ts';
import { fallocateCheck, fileSystemCheck, permissionCheck, secretFilesCheck, spaceCheck } from './folder-checks.ts';
import { guestCheck, socketModeCheck } from './guest-check.ts';
import { clockCheck, nodeCheck, portCheck, reachableCheck } from './host-checks.ts';
import { immutableCheck } from './immutable-check.ts';
import { kvmCheck } from './kvm-check.ts';
import { qemuCheck, qemuFeaturesCheck, qemuImgCheck } from './qemu-checks.ts';

export interface DoctorQuestion {
  readonly host: HostFacts;
  readonly configs: readonly Config[];
  /** QMP sockets of guests to look at, and the name under which a running source holds each, if it does. */
  readonly guests: readonly { readonly qmpPath: string; readonly holder: string | null }[];
  readonly targets: readonly { readonly name: string; readonly host: string; readonly port: number }[];
  readonly isKvmTried: boolean;
}

export function planChecks({ host, configs, guests, targets, isKvmTried }: DoctorQuestion): Check[] {
  const hasTarget = configs.length === 0 || configs.some(({ role }) => role === 'target');
  return [
    nodeCheck(host), qemuCheck(host), qemuFeaturesCheck(host), qemuImgCheck(host),
    // Only a target boots guests.
    ...(hasTarget ? [kvmCheck(host, isKvmTried)] : []),
    clockCheck(),
    ...configs.flatMap(checksOf),
    ...targets.map(({ name, host: address, port }) => reachableCheck(name, address, port)),
    ...guests.flatMap(({ qmpPath, holder }) => [...(isAbsolute(qmpPath) ? [socketModeCheck(qmpPath)] : []), guestCheck(qmpPath, holder)]),
  ];
}

function checksOf(config: Config): Check[] {
  const { dataFolder } = config.options;
  const data = `${config.role} data`;
  const common = [permissionCheck(data, dataFolder, true), secretFilesCheck(dataFolder)];
  switch (config.role) {
    case 'source': {
      const { folder, budgetBytes, keepFreeBytes } = config.options.spool;
      const agents = Object.entries(config.options.guests ?? {}).flatMap(([guest, { agentPath }]) => (agentPath === undefined ? [] : [agentCheck(guest, agentPath)]));
      return [...common, permissionCheck('spool', folder, false), fileSystemCheck('spool', folder, true), fallocateCheck('spool', folder), spaceCheck('spool', folder, keepFreeBytes, budgetBytes), ...agents];
    }
    case 'target':
      return [...common, fileSystemCheck(data, dataFolder, false), fallocateCheck(data, dataFolder), spaceCheck(data, dataFolder, config.options.keepFreeBytes, null), immutableCheck(dataFolder, config.controlPath), portCheck(config)];
    default: return config satisfies never;
  }
}
