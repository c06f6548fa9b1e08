/**
 * Starts a QEMU with no machine at all, asks it, ends it: what the program can do, without a guest. Invariant: it is ended
 * when the answer is there, when it takes too long, when asking fails, and (where setpriv is installed) when whoever asks is killed.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { constants, setPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findProgram } from '../host/node/programs.ts';
import { Fault, isFault } from '../journal/fault.ts';
import { connectQmp } from './qmp-client.ts';
import type { QmpConnection } from './qmp.ts';

/** From spawn until all is answered: 0.1 s on an idle host, and a cold disk takes seconds. */
const limitMsDefault = 15_000;
const pollMs = 20;

/** Faults: QMP_UNREACHABLE (with QEMU's own words when it ended), QMP_TIMEOUT, and those of `ask`. */
export async function askEmptyQemu<T>(program: string, accel: 'kvm' | 'tcg', ask: (qmp: QmpConnection) => Promise<T>, limitMs = limitMsDefault): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'afterimage-ask-'));
  const socketPath = join(folder, 'qmp');
  const [command, ...before] = await bound(program);
  const child = spawn(command, [...before, '-machine', 'none', '-accel', accel, '-nodefaults', '-nographic', '-S', '-qmp', `unix:${socketPath},server=on,wait=off`], { stdio: ['ignore', 'ignore', 'pipe'] });
  giveWay(child.pid);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said = (said + chunk.toString('utf8')).slice(-2000); });
  const asking = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(new Fault('QMP_UNREACHABLE', error.message)));
    // Its last words may come after its end.
    child.once('close', (code, signal) => reject(new Fault('QMP_UNREACHABLE', `it ended with ${signal ?? code}: ${said.trim().split('\n')[0] ?? ''}`)));
    timer = setTimeout(() => reject(new Fault('QMP_TIMEOUT', `it did not answer within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([over, connectAndAsk(socketPath, ask, asking.signal)]);
  } finally {
    clearTimeout(timer);
    asking.abort();
    child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
}

/** setpriv becomes the program (same pid) after asking the kernel to kill it when we are gone. */
async function bound(program: string): Promise<readonly [string, ...string[]]> {
  const setpriv = await findProgram(process.env['PATH'] ?? '', 'setpriv');
  return setpriv === null ? [program] : [setpriv, '--pdeathsig', 'KILL', '--', program];
}

/** Whoever waits for a guest comes first. */
function giveWay(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch (error) {
    // It has ended already, and is heard of below.
    if (!(error instanceof Error) || !('code' in error)) throw error;
  }
}

async function connectAndAsk<T>(socketPath: string, ask: (qmp: QmpConnection) => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    try {
      const qmp = await connectQmp(socketPath, { signal });
      try {
        return await ask(qmp);
      } finally {
        qmp.close();
      }
    } catch (error) {
      // It has not made its socket yet, or not its monitor.
      if (!isFault(error, 'QMP_UNREACHABLE') && !(isFault(error, 'QMP_CLOSED') && error.facts['reason'] === 'QMP_UNREACHABLE')) throw error;
      await delay(pollMs, undefined, { signal });
    }
  }
}
