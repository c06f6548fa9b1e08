/**
 * What can be seen of a guest that runs here: its screen and the end of its first serial port. It is the guest's, and goes into files and to
 * people as an image and as text, never as anything that is run or drawn as markup. It changes nothing of the guest.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isFault } from '../../journal/fault.ts';
import { withMonitor } from './guest-launch.ts';
import type { NotedGuest } from './group-guests.ts';
import { serialTail } from './readiness.ts';

export interface GuestLook { readonly screen: Buffer | null; /** Why there is none; empty: there is one. */ readonly screenWhy: string; readonly serial: string }

/** For people who are not at this host. */
export interface ShownGuest {
  readonly name: string;
  /** PNG, base64. Null: there is none, for `screenWhy`. */
  readonly screenPng: string | null;
  readonly screenWhy: string;
  /** Its end. */
  readonly serial: string;
}

/** What was seen is shown to others who ask so soon after, ms. */
const freshMs = 2_000;
/** By the guest's log: looks under way, and those that are fresh. */
const looks = new Map<string, Promise<GuestLook>>();

/** One look at a guest at a time, however many ask: its monitor serves one client, and the others are those who decide about it. */
export async function lookAtGuest({ logPath }: Pick<NotedGuest, 'logPath'>): Promise<GuestLook> {
  const shared = looks.get(logPath);
  if (shared !== undefined) return shared;
  const look = takeLook(logPath);
  looks.set(logPath, look);
  const forget = (): void => { looks.delete(logPath); };
  look.then(() => setTimeout(forget, freshMs).unref(), forget);
  return look;
}

async function takeLook(logPath: string): Promise<GuestLook> {
  // Where all that is a guest's lies (guest-launch.ts `guestPlace`).
  const folder = dirname(logPath);
  const serial = await serialTail(logPath);
  // What a crash left behind must not be taken for what is seen now.
  const path = join(folder, `screen-${randomBytes(4).toString('hex')}.png`);
  try {
    await withMonitor(folder, (qmp) => qmp.execute('screendump', { filename: path, format: 'png' }));
    return { screen: await readFile(path), screenWhy: '', serial };
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    return { screen: null, screenWhy: isFault(error, 'QMP_COMMAND') ? 'the guest has no display' : error.message, serial };
  } finally {
    await rm(path, { force: true });
  }
}

export function shownGuest(name: string, { screen, screenWhy, serial }: GuestLook): ShownGuest {
  return { name, screenPng: screen?.toString('base64') ?? null, screenWhy, serial };
}
