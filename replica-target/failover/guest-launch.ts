/**
 * Boots a group's guest on images of this host, from the hardware that was recorded for it: for failovers and for tests alike.
 * It decides nothing and notes nothing; what is in a guest's folder, and under which names, is said here.
 */
import { access, constants, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { bootCommand, findGuest, isGuestRunning, startGuest, type BootDisk } from '../../qemu/boot.ts';
import type { GuestHardware } from '../../qemu/hardware.ts';
import { ownMonitorName } from '../../qemu/own-monitor-plan.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { launchManaged, managedPlace, type GuestManager } from './managed-launch.ts';
import type { NetworkMap, NetworkName } from './network-plan.ts';
import { isThere, putInPlace } from './overlays.ts';

/** Where everything of one guest lies that runs here. */
export interface GuestPlace {
  readonly folder: string;
  /** The operator's monitor. */
  readonly qmpPath: string;
  /** What the guest says on its first serial port. */
  readonly logPath: string;
}

export function guestPlace(folder: string): GuestPlace {
  return { folder, qmpPath: join(folder, 'qmp.sock'), logPath: join(folder, 'console.log') };
}

export function overlayPath(folder: string, disk: number): string {
  return join(folder, `disk${disk}.qcow2`);
}

/** The local source's, which follows what the guest writes. */
function capturePath(folder: string): string {
  return join(folder, 'capture.sock');
}

/** By which the local source finds the guest: through its manager, where it has one. */
export async function placeOfGuest(folder: string): Promise<string> {
  return await managedPlace(folder) ?? capturePath(folder);
}

/** Where the guest's agent is reached, if it has a port for one. */
export function agentPath(folder: string): string {
  return join(folder, 'agent.sock');
}

/** A QMP socket serves one client at a time, and the first one is the operator's. */
function ownMonitorPath(folder: string): string {
  return join(folder, 'own.sock');
}

/** How long the guest's QEMU may take to answer; it may stand still while it waits for a view, ms. */
const monitorMsMax = 5_000;

/** Faults: QMP_*. */
export async function withMonitor<T>(folder: string, act: (qmp: QmpConnection) => Promise<T>): Promise<T> {
  const qmp = await connectQmp(ownMonitorPath(folder), { connectTimeoutMs: monitorMsMax, commandTimeoutMs: monitorMsMax });
  try {
    return await act(qmp);
  } finally {
    qmp.close();
  }
}

export interface Launch {
  /** The guest's name. */
  readonly group: string;
  /** The group's, where it is another. */
  readonly of?: string;
  readonly place: GuestPlace;
  readonly hardware: GuestHardware;
  readonly disks: readonly BootDisk[];
  readonly network: NetworkName;
  /** By MAC, of NICs that lead elsewhere. */
  readonly networks?: NetworkMap;
  readonly accel: 'kvm' | 'tcg';
  /** Its processors do not run before they are told to (`cont`). */
  readonly isStopped?: boolean;
  /** Who starts guests that were its; absent: they are started by us, as all others. */
  readonly manager?: GuestManager | undefined;
  /** It runs beside the guest that it is of: under another name, and with no trace after its end. */
  readonly isTrial?: boolean;
  readonly log: Logger;
}

/** Resolves to the guest's pid when its QEMU answers. Fault FAILOVER_BOOT. */
export async function launchGuest(launch: Launch): Promise<number> {
  const { group, place, hardware, disks, network, networks, accel, isStopped, log } = launch;
  const { folder, qmpPath, logPath } = place;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const varsPath = await restoreVariables(hardware, folder);
  const managed = await launchManaged({ ...launch, varsPath, agentPath: agentPath(folder), monitors: [qmpPath, ownMonitorPath(folder), join(folder, ownMonitorName)] });
  if (managed !== null) return managed;
  const { argv, notes } = bootCommand(hardware, {
    disks, qmpPath, pidFile: join(folder, 'pid'), consoleLog: logPath, network, networks, accel, agentPath: agentPath(folder),
    extra: [...[ownMonitorPath(folder), capturePath(folder)].flatMap((path) => ['-qmp', `unix:${path.replaceAll(',', ',,')},server=on,wait=off`]), ...(isStopped === true ? ['-S'] : [])],
    ...(varsPath === null ? {} : { varsPath }),
  });
  for (const line of notes) log.warn({ group }, line);
  const { pid } = await startGuest(argv, { logPath: join(folder, 'qemu.log'), qmpPath });
  return pid;
}

/** The guest's pid while it runs, remembered or not: the daemon may have died between QEMU's start and the note of its pid. */
export async function runningPid(pid: number | null, qmpPath: string): Promise<number | null> {
  if (pid !== null && isGuestRunning(pid, qmpPath)) return pid;
  return findGuest(qmpPath);
}

async function restoreVariables(hardware: GuestHardware, folder: string): Promise<string | null> {
  const content = hardware.firmware?.varsContentBase64;
  if (content === undefined) return null;
  const path = join(folder, 'vars.fd');
  if (!(await isThere(path))) {
    await writeFile(`${path}.new`, Buffer.from(content, 'base64'), { mode: 0o600 });
    await putInPlace(`${path}.new`, path);
  }
  return path;
}

/** `auto` takes KVM where the device can be opened; whether it works only a guest can tell, so `tcg` can be asked for. */
export async function chooseAccel(choice: 'kvm' | 'tcg' | 'auto'): Promise<'kvm' | 'tcg'> {
  if (choice !== 'auto') return choice;
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    return 'kvm';
  } catch (error) {
    if (error instanceof Error && 'code' in error) return 'tcg';
    throw error;
  }
}
