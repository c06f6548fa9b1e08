/**
 * What the demo runs on: a temporary folder, the two daemons as processes of their own, the operator's command, the guests.
 *
 * Invariant: `clear` ends every process that was started here, by its pid, and removes the folder, at whatever moment it is
 * called and however often. Should the demo itself be killed, the kernel ends its children.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

import { SourceClient, TargetClient } from '../../console/control-client.ts';
import { isFault } from '../../journal/fault.ts';
import { projectRoot, startLabGuest, type LabGuest, type LabGuestOptions } from '../lab/lab-guest.ts';

const run = promisify(execFile);
const program = join(projectRoot(), 'dist', 'console', 'main.js');

/** `source` at the first host, alpha, and `target` at the second, bravo; the other two are for the way back. */
export type Role = 'source' | 'target' | 'bravo-source' | 'alpha-target';
type Kind = 'source' | 'target';

export interface Stage {
  readonly folder: string;
  readonly source: SourceClient;
  readonly target: TargetClient;
  readonly bravoSource: SourceClient;
  readonly alphaTarget: TargetClient;
  configPath(role: Role): string;
  /** More lines, before the daemon is started. */
  addConfig(role: Role, lines: string): Promise<void>;
  /** Starts a daemon and waits until it answers its operator. Returns its pid. */
  startDaemon(role: Role): Promise<number>;
  /** SIGKILL, as when its host loses power. */
  killDaemon(role: Role): Promise<void>;
  /** Runs `afterimage` with these words; resolves to what it printed. */
  afterimage(words: readonly string[]): Promise<string>;
  startGuest(options: LabGuestOptions): Promise<LabGuest>;
  /** The end of what the daemons logged, for when something went wrong. */
  lastWords(): Promise<string[]>;
  clear(): Promise<void>;
}

/** `isTwoWay`: both hosts have both roles. */
export async function openStage(isTwoWay: boolean): Promise<Stage> {
  // Short, for the sockets in it: the path of a unix socket has at most 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), 'af-demo-'));
  const configPath = (role: Role): string => join(folder, `${role}.yaml`);
  const logPath = (role: Role): string => join(folder, `${role}.log`);
  const source = new SourceClient(join(folder, 'source.sock'));
  const target = new TargetClient(join(folder, 'target.sock'));
  const bravoSource = new SourceClient(join(folder, 'bs.sock'));
  const alphaTarget = new TargetClient(join(folder, 'at.sock'));
  const clients: Readonly<Record<Role, SourceClient | TargetClient>> = { source, target, 'bravo-source': bravoSource, 'alpha-target': alphaTarget };
  const daemons = new Map<Role, ChildProcess>();
  const guests: LabGuest[] = [];
  let isCleared = false;

  const sourceConfig = (role: Role, host: string): Promise<void> => writeFile(configPath(role), `role: source
name: ${host}
data: ${join(folder, role)}
spool: { folder: ${join(folder, `${role}-spool`)}, budget: 1GiB, keepFree: 64MiB }
control: ${clients[role].path}
`);
  const targetConfig = (role: Role, host: string, local: Role): Promise<void> => writeFile(configPath(role), `role: target
name: ${host}
listen: { host: 127.0.0.1, port: 0 }
advertise: 127.0.0.1
data: ${join(folder, role)}
keepFree: 64MiB
control: ${clients[role].path}
failover: { accel: ${process.env['AFTERIMAGE_ACCEL'] ?? 'tcg'}, network: none, overlayFolder: ${join(folder, role === 'target' ? 'overlays' : `${role}-overlays`)}${isTwoWay ? `, source: ${clients[local].path}` : ''} }
`);
  await sourceConfig('source', 'alpha');
  await targetConfig('target', 'bravo', 'bravo-source');
  await sourceConfig('bravo-source', 'bravo');
  await targetConfig('alpha-target', 'alpha', 'source');

  const end = async (child: ChildProcess | undefined): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };

  return {
    folder,
    source,
    target,
    bravoSource,
    alphaTarget,
    configPath,
    addConfig: (role, lines) => appendFile(configPath(role), lines),
    async startDaemon(role) {
      const log = await open(logPath(role), 'a');
      // In a session of its own: Ctrl-C is for the demo, which then ends the daemons in its own order.
      const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', process.execPath, program, kindOf(role), 'run', '--config', configPath(role)], {
        stdio: ['ignore', log.fd, log.fd],
        detached: true,
      });
      await log.close();
      daemons.set(role, child);
      if (isCleared) await end(child);
      const client = clients[role];
      const until = performance.now() + 30_000;
      while (!(await answers(client))) {
        if (child.exitCode !== null) throw new Error(`the ${role} ended with status ${child.exitCode}`);
        if (performance.now() > until) throw new Error(`the ${role} does not answer`);
        await delay(50);
      }
      if (child.pid === undefined) throw new Error(`the ${role} has no pid`);
      return child.pid;
    },
    killDaemon: (role) => end(daemons.get(role)),
    async afterimage(words) {
      const { stdout } = await run(process.execPath, [program, ...words], { maxBuffer: 1 << 24 });
      return stdout;
    },
    async startGuest(options) {
      const guest = await startLabGuest({ ...options, socketFolder: folder });
      guests.push(guest);
      if (isCleared) await guest.kill();
      return guest;
    },
    async lastWords() {
      const logs = await Promise.all([...daemons.keys()].map(async (role) => [role, await readText(logPath(role))] as const));
      return [
        ...logs.flatMap(([role, text]) => text.trim().split('\n').slice(-15).map((line) => `${role}: ${line}`)),
        ...guests.flatMap(({ qemuLog, serial }) => [...qemuLog.slice(-5), ...serial.slice(-5)].map(({ text }) => `guest: ${text}`)),
      ];
    },
    async clear() {
      isCleared = true;
      await Promise.all(guests.map((guest) => guest.kill()));
      for (const kind of ['source', 'target']) await Promise.all([...daemons].filter(([role]) => kindOf(role) === kind).map(([, child]) => end(child)));
      // What is left was started by a daemon or a command: a guest that failed over, perhaps while we were interrupted.
      await endAllThatName(folder);
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function kindOf(role: Role): Kind {
  return role.endsWith('source') ? 'source' : 'target';
}

async function answers(client: SourceClient | TargetClient): Promise<boolean> {
  try {
    await client.report();
    return true;
  } catch (error) {
    if (isFault(error) && error.code === 'DAEMON_UNREACHABLE') return false;
    throw error;
  }
}

/** Ends every process with this text in its command line. The name of a fresh temporary folder is nobody else's. */
async function endAllThatName(text: string): Promise<void> {
  const until = performance.now() + 10_000;
  while (performance.now() < until) {
    const pids = await processesThatName(text);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
    await delay(20);
  }
}

async function processesThatName(text: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const words = await Promise.all(pids.map((pid) => readText(`/proc/${pid}/cmdline`)));
  return pids.filter((pid, at) => pid !== process.pid && words[at]?.includes(text) === true);
}

/** Empty when it is not there, or a process is no longer. */
async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}
