/**
 * Unplanned failover of one group: what is sealed is applied, the term is raised durably, and the guest boots on overlays
 * over the replica with the hardware that was recorded for it. Only the applier ever writes a replica; a guest here writes
 * its overlay. Each step is noted in a file of its own, so that a target that was killed in between can be asked again.
 */
import { execFile } from 'node:child_process';
import { access, constants, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJsonFolder, replaceJson, syncFolder } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import { bootCommand, isGuestRunning, startGuest, stopGuest } from '../../qemu/boot.ts';
import { guestHardware } from '../../qemu/hardware.ts';
import type { FailoverRequest, FailoverResult, TargetOptions } from '../operations.ts';
import type { FailedOverGuest } from '../report.ts';
import type { GroupStore, StoredPoint } from '../store/store.ts';

const run = promisify(execFile);

const noted = z.object({
  groupId: z.string(),
  group: z.string(),
  term: z.number().int(),
  point: z.object({ term: z.number().int(), point: z.number().int() }),
  /** Overlays, firmware variables, sockets and logs of this failover. */
  folder: z.string(),
  qmpPath: z.string(),
  logPath: z.string(),
  pid: z.number().int().nullable(),
  startedAtMs: z.number(),
});
type Noted = z.infer<typeof noted>;

export interface FailoversOptions {
  readonly failover: TargetOptions['failover'];
  /** Where the notes are kept, absolute. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Failovers {
  readonly #o: FailoversOptions;
  #noted = new Map<string, Noted>();
  /** One act at a time for each group: a failover asked for twice must not start two guests. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(options: FailoversOptions) {
    this.#o = options;
  }

  async open(): Promise<void> {
    await mkdir(this.#o.folder, { recursive: true, mode: 0o700 });
    for (const note of await readJsonFolder(this.#o.folder, noted)) this.#noted.set(note.groupId, await this.#adopt(note));
  }

  report(): FailedOverGuest[] {
    return [...this.#noted.values()].map(({ group, term, point, qmpPath, pid, startedAtMs }) => ({
      group, term, point, qmpPath, pid, isRunning: pid !== null && isGuestRunning(pid, qmpPath), startedAtMs,
    }));
  }

  failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    return this.#inTurn(store.groupId, () => this.#failOver(store, request));
  }

  /** Ends the guest that runs here. `isRolledBack`: its overlays go, and the group takes deltas again. */
  stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    return this.#inTurn(store.groupId, () => this.#stop(store, isRolledBack));
  }

  async #failOver(store: GroupStore, request: FailoverRequest): Promise<FailoverResult> {
    const askedMs = this.#o.clock.monotonicMs();
    const askedAtMs = this.#o.clock.nowMs();
    const before = store.report();
    const known = await this.#known(store.groupId);
    if (known?.pid != null && isGuestRunning(known.pid, known.qmpPath)) {
      throw new Fault('FAILOVER_STATE', `${before.name} has failed over already and runs here (pid ${known.pid})`, { group: before.name, pid: known.pid });
    }
    if (before.newest === null) throw new Fault('FAILOVER_NO_POINT', `${before.name} has no sealed point yet`, { group: before.name });
    const hardware = this.#hardware(store);
    const accel = await chooseAccel(request.accel ?? this.#o.failover.accel);

    const { term, point } = before.state === 'failed-over' && before.applied !== null
      ? { term: before.term, point: before.applied }
      : await store.failOver();
    this.#o.log.warn({ group: before.name, term, point }, `failing over ${before.name} to point ${formatPoint(point)}`);

    const folder = join(this.#o.failover.overlayFolder, `${store.groupId.slice(0, 12)}-${term}`);
    const qmpPath = join(folder, 'qmp.sock');
    const logPath = join(folder, 'console.log');
    // First of all: whatever fails or dies from here on, the failover is known, can be asked for again, or rolled back.
    const note: Noted = { groupId: store.groupId, group: before.name, term, point: { term: point.term, point: point.point }, folder, qmpPath, logPath, pid: null, startedAtMs: askedAtMs };
    await this.#note(note);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const overlays = await this.#makeOverlays(store, folder);
    const varsPath = await this.#restoreVariables(hardware, folder);
    const { argv, notes } = bootCommand(hardware, {
      disks: overlays, qmpPath, pidFile: join(folder, 'pid'), consoleLog: logPath, network: request.network ?? this.#o.failover.network, accel,
      ...(varsPath === null ? {} : { varsPath }),
    });
    for (const line of notes) this.#o.log.warn({ group: before.name }, line);
    const { pid } = await startGuest(argv, { logPath: join(folder, 'qemu.log'), qmpPath });
    await this.#note({ ...note, pid });
    return {
      group: before.name,
      term,
      point: await this.#point(store, point),
      lostMs: Math.max(0, askedAtMs - before.newest.cutAtMs),
      rtoMs: this.#o.clock.monotonicMs() - askedMs,
      qmpPath, pid, logPath, accel,
      overlayPaths: overlays.map(({ path }) => path),
    };
  }

  async #stop(store: GroupStore, isRolledBack: boolean): Promise<void> {
    const note = await this.#known(store.groupId);
    const { name, state } = store.report();
    if (note === undefined) {
      // The term was raised, and what died then had not even noted it.
      if (state === 'failed-over' && isRolledBack) return store.rollBack();
      throw new Fault('FAILOVER_STATE', `${name} has not failed over`, { group: name });
    }
    if (note.pid !== null && isGuestRunning(note.pid, note.qmpPath)) await stopGuest(note.pid, note.qmpPath);
    await this.#note({ ...note, pid: null });
    if (!isRolledBack) return;
    if (state === 'failed-over') await store.rollBack();
    await rm(note.folder, { recursive: true, force: true });
    await rm(this.#notePath(store.groupId), { force: true });
    this.#noted.delete(store.groupId);
  }

  async #inTurn<T>(groupId: string, act: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(groupId) ?? Promise.resolve();
    const turn = before.then(act, act);
    this.#turns.set(groupId, turn);
    return turn;
  }

  async #known(groupId: string): Promise<Noted | undefined> {
    const note = this.#noted.get(groupId);
    return note === undefined ? undefined : this.#adopt(note);
  }

  /** The daemon may have died between QEMU's start and the note of its pid: QEMU's own pid file tells, and its command line proves it. */
  async #adopt(note: Noted): Promise<Noted> {
    if (note.pid !== null) return note;
    const text = await readFile(join(note.folder, 'pid'), 'utf8').catch((error: NodeJS.ErrnoException) => { if (error.code === 'ENOENT') return ''; throw error; });
    const pid = Number(text.trim());
    if (!Number.isInteger(pid) || pid <= 0 || !isGuestRunning(pid, note.qmpPath)) return note;
    const adopted = { ...note, pid };
    await this.#note(adopted);
    return adopted;
  }

  #hardware(store: GroupStore): ReturnType<typeof guestHardware.parse> {
    const parsed = guestHardware.safeParse(store.hardware());
    if (!parsed.success) {
      throw new Fault('FAILOVER_BOOT', `the recorded hardware of ${store.report().name} cannot be used: ${z.prettifyError(parsed.error)}`, { group: store.report().name });
    }
    return parsed.data;
  }

  async #makeOverlays(store: GroupStore, folder: string): Promise<{ disk: number; name: string; path: string; format: 'qcow2' }[]> {
    const overlays: { disk: number; name: string; path: string; format: 'qcow2' }[] = [];
    for (const { disk, name, replicaPath, isAtApplied } of store.report().disks) {
      if (!isAtApplied) continue; // added after the point that boots
      const path = join(folder, `disk${disk}.qcow2`);
      // An overlay of an attempt that never booted is of no use; one that a guest wrote to is kept, whatever it takes to look.
      if (!(await isThere(path))) {
        await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', replicaPath, `${path}.new`]);
        await putInPlace(`${path}.new`, path);
      }
      overlays.push({ disk, name, path, format: 'qcow2' });
    }
    return overlays;
  }

  async #restoreVariables(hardware: ReturnType<typeof guestHardware.parse>, folder: string): Promise<string | null> {
    const content = hardware.firmware?.varsContentBase64;
    if (content === undefined) return null;
    const path = join(folder, 'vars.fd');
    if (!(await isThere(path))) {
      await writeFile(`${path}.new`, Buffer.from(content, 'base64'), { mode: 0o600 });
      await putInPlace(`${path}.new`, path);
    }
    return path;
  }

  async #point(store: GroupStore, id: { term: number; point: number }): Promise<StoredPoint> {
    const found = (await store.points()).find(({ term, point }) => term === id.term && point === id.point);
    if (found === undefined) throw new Fault('STORE_CORRUPT', `point ${formatPoint(id)} was booted and is not in the catalog`, { ...id });
    return found;
  }

  #notePath(groupId: string): string {
    return join(this.#o.folder, `${groupId}.json`);
  }

  async #note(note: Noted): Promise<void> {
    await replaceJson(this.#notePath(note.groupId), note);
    this.#noted.set(note.groupId, note);
  }
}

/** `auto` takes KVM where the device can be opened; whether it works only a guest can tell, so `tcg` can be asked for. */
async function chooseAccel(choice: 'kvm' | 'tcg' | 'auto'): Promise<'kvm' | 'tcg'> {
  if (choice !== 'auto') return choice;
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    return 'kvm';
  } catch (error) {
    if (error instanceof Error && 'code' in error) return 'tcg';
    throw error;
  }
}

/** Whole and durable under its name, or not there: a half-made file must not be taken for a finished one by the next attempt. */
async function putInPlace(made: string, path: string): Promise<void> {
  const file = await open(made, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(made, path);
  await syncFolder(dirname(path));
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
