/**
 * Starts a lab guest: a real QEMU with the kernel and initramfs of scripts/lab/build, its console read line by line.
 * For tests, the demo and the benchmarks alike; it knows nothing of tap, and nothing of the product.
 *
 * Invariant: no QEMU outlives its starter. It is spawned without a wrapper, so that its pid is the one that is killed;
 * it has a time limit; and the kernel kills it when the process that started it dies, however that dies.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { qemuArguments } from './qemu-arguments.ts';
import { watchLines, type SeenLine } from './watch-lines.ts';

const run = promisify(execFile);

export interface LabDisk {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** Default virtio-blk. */
  readonly device?: 'virtio-blk' | 'virtio-scsi';
  /** The device's id; null for a device without one. Default disk0, disk1, … */
  readonly id?: string | null;
  /** The format node's name; null leaves naming to QEMU (an old-style `-drive`). Default node0, node1, … */
  readonly nodeName?: string | null;
  /** An I/O thread of its own. Default false. */
  readonly iothread?: boolean;
}

export interface LabGuestOptions {
  readonly disks: readonly LabDisk[];
  /** What the guest does; scripts/lab/guest/init says what each means. Default idle. */
  readonly mode?: 'idle' | 'counter' | 'verify' | 'raw' | 'sqlite';
  /** KiB/s of load; the guest's default for the mode when absent, 0 for none. */
  readonly churn?: number;
  /** More words for the kernel command line, such as `af.pace=5` or `af.span=64`. */
  readonly append?: string;
  readonly memoryMiB?: number;
  /** A channel for QEMU's guest agent, which then runs in the guest (it says `AF AGENT`). Default false. */
  readonly hasAgent?: boolean;
  /** Default q35. */
  readonly machine?: string;
  readonly extraArgs?: readonly string[];
  /** This long after its start the guest is killed. Default 120,000. */
  readonly timeLimitMs?: number;
  /** A folder of the caller's for the QMP sockets, for a guest that starts again under the same paths. Default: one that goes with the guest. */
  readonly socketFolder?: string;
}

export interface LabGuest {
  readonly pid: number;
  /** For what is under test. */
  readonly qmpPath: string;
  /** For the test's own looking. */
  readonly ownQmpPath: string;
  /** Of the guest agent's channel, where there is one. */
  readonly agentPath: string;
  /** Everything that the guest said so far, oldest first. */
  readonly serial: readonly SeenLine[];
  /** Everything that QEMU itself said on its error output. */
  readonly qemuLog: readonly SeenLine[];
  /** The command line, without the program's name. */
  readonly args: readonly string[];
  /**
   * The first line at or after index `from` (default: the first of all) that matches. Rejects after `limitMs`, when
   * QEMU ends, or when the guest's kernel panics, with the last lines in the message.
   */
  waitForLine(pattern: RegExp, limitMs: number, from?: number): Promise<SeenLine>;
  /** One line to the guest's console, without waiting. */
  send(command: string): void;
  /** Sends a command and waits until the guest has done it; rejects when it failed. Returns what was said meanwhile. */
  command(command: string, limitMs?: number): Promise<readonly SeenLine[]>;
  /** Shuts down cleanly from within and waits until QEMU has ended. */
  powerOff(limitMs?: number): Promise<void>;
  /** SIGKILL by pid; resolves when the process is gone. Does nothing when it already is. */
  kill(): Promise<void>;
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  readonly hasExited: boolean;
}

export async function startLabGuest(options: LabGuestOptions): Promise<LabGuest> {
  const image = await buildLabGuest();
  // Not the test's own folder: a unix socket's path must stay below 108 bytes.
  const folder = options.socketFolder ?? await mkdtemp(join(tmpdir(), 'af-lab-'));
  const qmpPath = join(folder, 'qmp');
  const ownQmpPath = join(folder, 'qmp-own');
  const agentPath = join(folder, 'agent');
  // Those of an earlier guest under the same paths would be taken for the new one's.
  await Promise.all([qmpPath, ownQmpPath, agentPath].map((path) => rm(path, { force: true })));
  const args = qemuArguments(options, { ...image, qmpPaths: [qmpPath, ownQmpPath], agentPath });

  // setpriv becomes QEMU (same pid) after asking the kernel to kill it when we are gone.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'qemu-system-x86_64', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  const serial = watchLines(child.stdout);
  const log = watchLines(child.stderr);
  let isGone = false;
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', (error) => {
      isGone = true;
      serial.end(`QEMU could not be started: ${error.message}`);
      reject(error);
    });
    child.once('close', (code, signal) => {
      isGone = true;
      serial.end(`QEMU ended (${signal ?? `status ${code}`})`);
      resolve({ code, signal });
    });
  });
  // Whoever waits on a line hears of the end too; nobody has to listen here.
  exited.catch(() => undefined);
  // The guest may be gone while a command is on its way: that is heard of through `exited`.
  child.stdin.on('error', () => undefined);

  let limit: NodeJS.Timeout | undefined;
  const clearing = exited.then(() => undefined, () => undefined).then(async () => {
    clearTimeout(limit);
    if (options.socketFolder === undefined) await rm(folder, { recursive: true, force: true });
  });
  const kill = async (): Promise<void> => {
    if (!isGone) child.kill('SIGKILL');
    await exited;
    await clearing;
  };
  const waitForLine = (pattern: RegExp, limitMs: number, from = 0): Promise<SeenLine> =>
    serial.waitFor(pattern, limitMs, { from, orFail: /Kernel panic|AF FAILED mount/, context: log.lines });
  const send = (command: string): void => {
    child.stdin.write(`${command}\n`);
  };
  const command = async (text: string, limitMs = 30_000): Promise<readonly SeenLine[]> => {
    const from = serial.lines.length;
    send(text);
    const escaped = text.replace(/[^\w ]/g, '\\$&');
    const done = await waitForLine(new RegExp(`^AF DONE (\\d+) ${escaped}$`), limitMs, from);
    const status = Number(done.match[1]);
    assert.equal(status, 0, `the lab guest failed at "${text}" (status ${status})`);
    return serial.lines.slice(from, done.index);
  };

  try {
    await greeted(ownQmpPath, () => (isGone ? log.lines.map((line) => line.text).join('\n') || 'QEMU ended at once' : null));
  } catch (error) {
    // What kept QEMU from starting at all rejects here once more.
    await kill().catch(() => undefined);
    throw error;
  }
  // Until here the wait for the greeting is the limit.
  limit = setTimeout(() => void kill(), options.timeLimitMs ?? 120_000).unref();
  assert(child.pid !== undefined);
  return {
    pid: child.pid,
    qmpPath,
    ownQmpPath,
    agentPath,
    serial: serial.lines,
    qemuLog: log.lines,
    args,
    waitForLine,
    send,
    command,
    async powerOff(limitMs = 20_000) {
      const from = serial.lines.length;
      send('poweroff');
      await waitForLine(/^AF POWEROFF$/, limitMs, from);
      await exited;
      await clearing;
    },
    kill,
    exited,
    get hasExited() {
      return isGone;
    },
  };
}

let built: Promise<{ kernel: string; initrd: string }> | undefined;

/** Kernel and initramfs, built when they are not in the cache. */
export function buildLabGuest(): Promise<{ readonly kernel: string; readonly initrd: string }> {
  built ??= run(join(projectRoot(), 'scripts/lab/build')).then(({ stdout }) => JSON.parse(stdout) as { kernel: string; initrd: string });
  return built;
}

/** The checkout: this file runs both from the sources and from the build folder. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    assert.notEqual(folder, dirname(folder), 'the project folder is above this file');
    folder = dirname(folder);
  }
  return folder;
}

/** QEMU has its sockets before it has opened its disks; it answers on them once all that can fail at the start is done. */
async function greeted(path: string, ended: () => string | null): Promise<void> {
  const until = performance.now() + 20_000;
  while (!(await isGreeted(path))) {
    const why = ended();
    if (why !== null) throw new Error(`the lab guest did not start: ${why}`);
    if (performance.now() > until) throw new Error('the lab guest did not answer on its QMP socket within 20 s');
    await delay(10);
  }
}

function isGreeted(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (isGreeting: boolean): void => {
      socket.destroy();
      resolve(isGreeting);
    };
    socket.setTimeout(20_000, () => settle(false));
    socket.once('data', () => settle(true));
    // Not there yet, or gone: the caller looks whether QEMU still runs.
    socket.once('error', () => settle(false));
    socket.once('close', () => settle(false));
  });
}
