/**
 * Sees to it that no guest stays paused because the daemon died: before a guest is paused a note of it is there, and a process that goes on guard until the daemon's end. That
 * process (pause-watchdog.ts) is started when it is first needed, serves all groups, and is told nothing: the end of its input means that the daemon is gone.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Fault } from '../../journal/fault.ts';
import type { PausedGuest, PausedNotes } from './paused-notes.ts';

/** A Node process starts in well under a second; a loaded host gets time, ms. */
const startMsMax = 15_000;

/** The process, while it lives. */
export class PauseWatchdog {
  readonly #folder: string;
  #child: ChildProcess | null = null;
  #ready: Promise<void> | null = null;

  constructor(folder: string) {
    this.#folder = folder;
  }

  get pid(): number | undefined { return this.#child?.pid; }

  /** Resolves when it is on guard. Fault PAUSE_UNARMED. */
  async arm(): Promise<void> {
    this.#ready ??= this.#start();
    try {
      await this.#ready;
    } catch (error) {
      this.#ready = null;
      throw error;
    }
  }

  /** Nothing is paused any more: it ends. */
  leave(): void {
    this.#child?.stdin!.end();
    this.#child = null;
    this.#ready = null;
  }

  async #start(): Promise<void> {
    const own = fileURLToPath(import.meta.url);
    const program = fileURLToPath(new URL(`pause-watchdog${extname(own)}`, import.meta.url));
    // The same Node with the same flags: where the sources run without a build, so does it.
    const child = spawn(process.execPath, [...process.execArgv, program, this.#folder], { detached: true, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin.on('error', () => undefined);
    child.unref();
    for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref?: () => void }).unref?.();
    const isReady = await new Promise<boolean>((resolve) => {
      const late = setTimeout(() => resolve(false), startMsMax);
      const end = (isOn: boolean): void => {
        clearTimeout(late);
        resolve(isOn);
      };
      createInterface({ input: child.stdout }).once('line', () => end(true)).once('close', () => end(false));
      child.once('error', () => end(false));
    });
    if (!isReady) {
      child.stdin.end();
      throw new Fault('PAUSE_UNARMED', 'the process that would have paused guests go on could not be started', {});
    }
    this.#child = child;
    // Whoever is next to pause a guest starts another.
    child.once('exit', () => {
      if (this.#child !== child) return;
      this.#child = null;
      this.#ready = null;
    });
  }
}

/** Of one group. */
export class PauseGuard {
  readonly #group: string;
  readonly #notes: PausedNotes;
  readonly #watchdog: PauseWatchdog;

  #hasLeft = false;

  constructor(group: string, notes: PausedNotes, watchdog: PauseWatchdog) {
    this.#group = group;
    this.#notes = notes;
    this.#watchdog = watchdog;
  }

  /** They may be paused from now on. Fault PAUSE_UNARMED. */
  async paused(guests: readonly PausedGuest[]): Promise<void> {
    await this.#watchdog.arm();
    this.#hasLeft = true;
    await this.#notes.put({ group: this.#group, guests: [...guests] });
  }

  /** None is, any more. */
  async gone(): Promise<void> {
    await this.#notes.remove(this.#group);
    this.#hasLeft = false;
  }

  /** Some may still be paused, as far as this process knows. */
  get hasLeft(): boolean { return this.#hasLeft; }

  /** Those that may be paused still. */
  left(): Promise<readonly PausedGuest[]> {
    return this.#notes.of(this.#group);
  }
}
