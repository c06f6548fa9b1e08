/**
 * The guests of a group that were started here, as one: launched together, looked up, stopped. A guest alone is a group of one, and lies where a group's files lie; several have
 * a folder each within it. It decides nothing and notes nothing.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { Fault } from '../../journal/fault.ts';
import { isGuestRunning, stopGuest, type BootDisk } from '../../qemu/boot.ts';
import { ownDiskName, readGroupHardware, type RecordedGuest } from '../../qemu/group-hardware.ts';
import { stopPveGuest } from '../../qemu/pve/start-guest.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { StartedGuest } from '../operations.ts';
import type { GroupStore } from '../store/store.ts';
import type { StartedState } from './group-start.ts';
import { guestPlace, launchGuest, runningPid, withMonitor, type Launch } from './guest-launch.ts';

/** As a note keeps it. */
export const notedGuest = z.object({
  name: z.string(),
  folder: z.string(),
  /** The operator's monitor. */
  qmpPath: z.string(),
  /** What it says on its first serial port. */
  logPath: z.string(),
  pid: z.number().int().nullable(),
});
export type NotedGuest = z.infer<typeof notedGuest>;

/** For reports: where each guest is, and whether it runs. */
export interface GuestReport { readonly name: string; readonly qmpPath: string; readonly logPath: string; readonly pid: number | null; readonly isRunning: boolean; /** While and since it was started by this process. */ readonly start?: StartedState | undefined }

/** Fault FAILOVER_BOOT. */
export function recordedGuests(store: GroupStore): readonly RecordedGuest[] {
  const { name } = store.report();
  const read = readGroupHardware(store.hardware(), name);
  if ('flaw' in read) throw new Fault('FAILOVER_BOOT', `the recorded hardware of ${name} cannot be used: ${read.flaw}`, { group: name });
  return read.guests;
}

/** Where they will be. Numbered, as a socket's path may not be long. */
export function placeGuests(recorded: readonly RecordedGuest[], groupFolder: string): NotedGuest[] {
  return recorded.map(({ name }, at) => {
    const { folder, qmpPath, logPath } = guestPlace(recorded.length === 1 ? groupFolder : join(groupFolder, `g${at}`));
    return { name, folder, qmpPath, logPath, pid: null };
  });
}

/** Those that do not run are started, all at once; should one fail, those that were started are ended again. Fault FAILOVER_BOOT. */
export async function launchGuests(guests: readonly NotedGuest[], recorded: readonly RecordedGuest[], disks: readonly BootDisk[], launch: Pick<Launch, 'of' | 'network' | 'networks' | 'accel' | 'isStopped' | 'manager' | 'isTrial'> & { readonly log: Logger }): Promise<NotedGuest[]> {
  const launched = await Promise.allSettled(guests.map(async (guest, at) => {
    if (guest.pid !== null) return guest;
    const record = recorded[at]!;
    const own = record.disks === null ? disks : disks.filter(({ disk }) => record.disks!.includes(disk)).map((disk) => ({ ...disk, ...(disk.name === undefined ? {} : { name: ownDiskName(record, disk.name) }) }));
    return { ...guest, pid: await launchGuest({ group: guest.name, place: guest, hardware: record.hardware, disks: own, ...launch }) };
  }));
  const failed = launched.find((one) => one.status === 'rejected');
  if (failed === undefined) return launched.map((one) => (one as PromiseFulfilledResult<NotedGuest>).value);
  await stopGuests(launched.flatMap((one, at) => (one.status === 'fulfilled' && guests[at]!.pid === null ? [one.value] : [])));
  return Promise.reject(failed.reason as Error);
}

/** As they are now. The same list when nothing changed. */
export async function lookUpGuests(guests: NotedGuest[]): Promise<NotedGuest[]> {
  const found = await Promise.all(guests.map(async (guest) => ({ ...guest, pid: await runningPid(guest.pid, guest.qmpPath) })));
  return found.some(({ pid }, at) => pid !== guests[at]!.pid) ? found : guests;
}

export async function stopGuests(guests: readonly NotedGuest[]): Promise<void> {
  await Promise.all(guests.flatMap(({ pid, qmpPath, folder }) => (pid === null ? [] : [stopPveGuest(folder).then(() => stopGuest(pid, qmpPath))])));
}

/** Of each that runs. Faults: QMP_*. */
export function eachMonitor<T>(guests: readonly NotedGuest[], act: (qmp: QmpConnection, guest: NotedGuest) => Promise<T>): Promise<T[]> {
  return Promise.all(guests.filter(({ pid }) => pid !== null).map((guest) => withMonitor(guest.folder, (qmp) => act(qmp, guest))));
}

export function areSome(guests: readonly NotedGuest[]): boolean {
  return guests.some(({ pid }) => pid !== null);
}

export function areAll(guests: readonly NotedGuest[]): boolean {
  return guests.length > 0 && guests.every(({ pid }) => pid !== null);
}

export function reportGuests(guests: readonly NotedGuest[]): readonly GuestReport[] {
  return guests.map(({ name, qmpPath, logPath, pid }) => ({ name, qmpPath, logPath, pid, isRunning: pid !== null && isGuestRunning(pid, qmpPath) }));
}

/** What reports say of the first of them. */
export function firstOf([first]: readonly NotedGuest[]): Pick<NotedGuest, 'qmpPath' | 'logPath' | 'pid'> {
  const { qmpPath = '', logPath = '', pid = null } = first ?? {};
  return { qmpPath, logPath, pid };
}

/** All of them run. */
export function startedGuests(guests: readonly NotedGuest[]): { readonly guests: readonly StartedGuest[]; readonly qmpPath: string; readonly logPath: string; readonly pid: number } {
  const started = guests.map(({ name, qmpPath, logPath, pid }) => ({ name, qmpPath, logPath, pid: pid! }));
  return { guests: started, qmpPath: started[0]!.qmpPath, logPath: started[0]!.logPath, pid: started[0]!.pid };
}
