/**
 * What a failover does to this host, as a seam: images, QEMUs, and the notes that tell the next process of them. What is done when, and what may be done, is failover.ts; so a
 * simulation can have that decide over guests and files of its own.
 */
import { mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { readJsonFolder, replaceJson } from '../../host/node/json-file.ts';
import type { BootDisk } from '../../qemu/boot.ts';
import type { RecordedGuest } from '../../qemu/group-hardware.ts';
import { runReady, runStateOf } from '../../qemu/guest-blocks.ts';
import { thawPveGuest } from '../../qemu/pve/start-guest.ts';
import type { AccelChoice } from '../operations.ts';
import type { GroupStore } from '../store/store.ts';
import { bootImages } from './boot-images.ts';
import { failoverNote, type FailoverNote } from './failover-note.ts';
import { eachMonitor, launchGuests, lookUpGuests, reportGuests, stopGuests, type NotedGuest } from './group-guests.ts';
import { chooseAccel } from './guest-launch.ts';
import { runHook, runHookAfter, type HookFacts, type Hooks, type HookStep } from './hooks.ts';
import { forgetManaged, type GuestManager } from './managed-launch.ts';
import type { ChosenNetwork } from './network-plan.ts';
import { awaitReady } from './readiness.ts';
import { GroupHomecoming, type GroupHomecomingOptions, type HomeReport } from './homecoming.ts';

export interface FailoverHost {
  /** Durable when they resolve. */
  notes(): Promise<FailoverNote[]>;
  note(note: FailoverNote): Promise<void>;
  forget(groupId: string): Promise<void>;
  /** What lies in a failover's folder goes. */
  removeFolder(folder: string): Promise<void>;
  /** Of the overlay folder's file system. */
  freeBytes(): Promise<number>;
  accel(choice: AccelChoice): Promise<'kvm' | 'tcg'>;
  /** Made where they are not there yet. */
  images(store: GroupStore, note: FailoverNote): Promise<BootDisk[]>;
  /** Those that do not run are started, and stand still. Fault FAILOVER_BOOT: none that was started is left. */
  launch(guests: readonly NotedGuest[], recorded: readonly RecordedGuest[], disks: readonly BootDisk[], how: ChosenNetwork & { readonly of: string; readonly accel: 'kvm' | 'tcg' }): Promise<NotedGuest[]>;
  /** As they are now; the same list when nothing changed. */
  lookUp(guests: NotedGuest[]): Promise<NotedGuest[]>;
  /** Those that stand still since they were started run when it resolves. Faults: QMP_*. */
  run(guests: readonly NotedGuest[]): Promise<void>;
  /** Whether any of them stands still since it was started. */
  isWaiting(guests: readonly NotedGuest[]): Promise<boolean>;
  /** See readiness.ts. */
  awaitReady: typeof awaitReady;
  stop(guests: readonly NotedGuest[]): Promise<void>;
  isRunning(guest: NotedGuest): boolean;
  bringHome(options: GroupHomecomingOptions): ComingHome;
  /** The operator's script for a step, if there is one (hooks.ts). Fault HOOK_FAILED. */
  hook(step: HookStep, note: FailoverNote): Promise<void>;
  /** Never rejects. */
  hookAfter(step: HookStep, note: FailoverNote): Promise<void>;
}

export interface ComingHome {
  report(): HomeReport;
  stop(): Promise<void>;
}

/** `folder`: of the notes. `viewSocketPath`: where this target serves views. */
export async function nodeFailoverHost({ folder, overlayFolder, viewSocketPath, hooks, manager, log }: { readonly folder: string; readonly overlayFolder: string; readonly viewSocketPath: string; readonly hooks?: Hooks | undefined; readonly manager?: GuestManager | undefined; readonly log: Logger }): Promise<FailoverHost> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = (groupId: string): string => join(folder, `${groupId}.json`);
  return {
    notes: () => readJsonFolder(folder, failoverNote),
    note: (note) => replaceJson(path(note.groupId), note),
    forget: (groupId) => rm(path(groupId), { force: true }),
    removeFolder: async (gone) => {
      // A guest alone lies where a group's files lie.
      for (const guestFolder of [gone, ...await guestFolders(gone)]) await forgetManaged(guestFolder);
      await rm(gone, { recursive: true, force: true });
    },
    freeBytes: async () => {
      const { bavail, bsize } = await statfs(overlayFolder);
      return bavail * bsize;
    },
    accel: chooseAccel,
    images: async (store, note) => {
      await mkdir(note.folder, { recursive: true, mode: 0o700 });
      return bootImages(store, note, viewSocketPath);
    },
    launch: (guests, recorded, disks, how) => launchGuests(guests, recorded, disks, { ...how, isStopped: true, manager, log }),
    lookUp: lookUpGuests,
    run: async (guests) => {
      await eachMonitor(guests, runReady);
      for (const { folder: guestFolder } of guests) await thawPveGuest(guestFolder);
    },
    isWaiting: async (guests) => (await eachMonitor(guests, runStateOf)).includes('prelaunch'),
    awaitReady,
    stop: stopGuests,
    isRunning: (guest) => reportGuests([guest])[0]!.isRunning,
    bringHome: (options) => new GroupHomecoming(options),
    hook: (step, note) => runHook(hooks, step, hookFacts(note), log),
    hookAfter: (step, note) => runHookAfter(hooks, step, hookFacts(note), log),
  };
}

async function guestFolders(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function hookFacts({ group, groupId, term, point, guests, handover }: FailoverNote): HookFacts {
  return { for: 'failover', group, groupId, term, point, guests, isPlanned: handover !== null };
}
