/**
 * What a QEMU can do of what Afterimage needs, asked of itself through introspection (never from the version alone:
 * distributions leave drivers out). Changes nothing there.
 */
import type { QmpConnection } from './qmp.ts';

export interface QemuFeatures {
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly isStorageDaemon: boolean;
  /** Block drivers that this QEMU was built with, of those that we use. */
  readonly hasQuorum: boolean;
  readonly hasVpc: boolean;
  readonly hasQcow2: boolean;
  readonly hasNullCo: boolean;
  readonly hasTransaction: boolean;
  /** `blockdev-backup` takes `filter-node-name`. */
  readonly hasBackupFilterName: boolean;
  readonly hasBitmaps: boolean;
  readonly hasMirror: boolean;
  readonly hasNbdServer: boolean;
  /** `x-debug-query-block-graph`: without it nothing beneath a filter can be seen. */
  readonly hasBlockGraph: boolean;
}

/** Oldest release whose sequences were verified. */
export const versionMin = { major: 7, minor: 2 } as const;

interface SchemaEntry {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly members?: readonly { readonly name: string; readonly type: string }[];
  readonly values?: readonly string[];
}

export async function probeFeatures(qmp: QmpConnection): Promise<QemuFeatures> {
  const [commandList, schema] = await Promise.all([
    qmp.execute<{ name: string }[]>('query-commands'),
    qmp.execute<SchemaEntry[]>('query-qmp-schema'),
  ]);
  const commands = new Set(commandList.map(({ name }) => name));
  const entries = new Map(schema.map((entry) => [entry.name, entry]));
  const argumentOf = (command: string): readonly { readonly name: string; readonly type: string }[] => entries.get(entries.get(command)?.['arg-type'] ?? '')?.members ?? [];
  // Types have no names in the schema; the enum BlockdevDriver is the type of blockdev-add's "driver".
  const drivers = new Set(entries.get(argumentOf('blockdev-add').find(({ name }) => name === 'driver')?.type ?? '')?.values);
  return {
    version: qmp.version,
    // It answers query-block, emptily; what it lacks is a machine.
    isStorageDaemon: !commands.has('device_add'),
    hasQuorum: drivers.has('quorum'),
    hasVpc: drivers.has('vpc'),
    hasQcow2: drivers.has('qcow2'),
    hasNullCo: drivers.has('null-co'),
    hasTransaction: commands.has('transaction'),
    hasBackupFilterName: argumentOf('blockdev-backup').some(({ name }) => name === 'filter-node-name'),
    hasBitmaps: ['block-dirty-bitmap-add', 'block-dirty-bitmap-merge', 'block-dirty-bitmap-disable', 'block-dirty-bitmap-remove'].every((name) => commands.has(name)),
    hasMirror: commands.has('blockdev-mirror') && drivers.has('nbd'),
    hasNbdServer: commands.has('nbd-server-start') && commands.has('block-export-add'),
    hasBlockGraph: commands.has('x-debug-query-block-graph'),
  };
}

/** Why a guest of this QEMU cannot be protected safely, for people; empty when it can. */
export function unsuited(features: QemuFeatures): string[] {
  const { major, minor, micro } = features.version;
  const isOld = major < versionMin.major || (major === versionMin.major && minor < versionMin.minor);
  const missing: readonly (readonly [boolean, string])[] = [
    [features.hasQuorum, 'it was built without the quorum driver, which keeps a full spool from failing the guest’s writes'],
    [features.hasNullCo, 'it was built without the null-co driver'],
    [features.hasQcow2, 'it was built without the qcow2 driver'],
    [features.hasVpc, 'it was built without the vpc driver'],
    [features.hasTransaction, 'it has no transaction command'],
    [features.hasBackupFilterName, 'its blockdev-backup takes no filter-node-name'],
    [features.hasBitmaps, 'it lacks commands for dirty bitmaps'],
    [features.hasMirror, 'it cannot mirror a disk over NBD'],
    [features.hasNbdServer, 'it cannot export over NBD'],
  ];
  return [
    ...(isOld ? [`QEMU ${major}.${minor}.${micro} is older than ${versionMin.major}.${versionMin.minor}`] : []),
    ...missing.filter(([has]) => !has).map(([, why]) => why),
  ];
}
