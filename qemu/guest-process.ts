/**
 * Starts and ends the QEMU of a guest that runs here. It outlives the daemon that started it, and is told from any other
 * process, also one that got its number later, by the QMP socket in its command line (`-qmp unix:PATH,…`): nothing else is ever ended.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '../journal/fault.ts';
import { connectQmp } from './qmp-client.ts';

export interface StartOptions {
  /** QEMU's own words are appended here. */
  readonly logPath: string;
  /** The socket that the command line names. */
  readonly qmpPath: string;
  /** Until QMP must answer. QEMU allocates the memory before; emulated firmware does not count. */
  readonly timeoutMs?: number;
}

const startTimeoutMsDefault = 60_000;
const pollMs = 20;
/** As much of QEMU's words as an error carries. */
const saidBytesMax = 4096;

/** Resolves when the guest's QMP answers. Fault: FAILOVER_BOOT, with QEMU's own words; then no process is left. */
export async function startGuest(argv: readonly string[], options: StartOptions): Promise<{ pid: number }> {
  const [program, ...args] = argv;
  if (program === undefined) throw new RangeError('an empty command line');
  const { logPath, qmpPath, timeoutMs = startTimeoutMsDefault } = options;
  const socketBefore = await identity(qmpPath);
  const log = openSync(logPath, 'a', 0o600);
  const saidFrom = (await stat(logPath)).size;
  // Its own session: neither the daemon's end nor a terminal's reaches it.
  const child = spawn(program, args, { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  let end: string | null = null;
  child.once('error', (error) => { end = error.message; });
  child.once('exit', (code, signal) => { end ??= signal === null ? `QEMU ended with exit code ${code}` : `QEMU was ended by ${signal}`; });
  const failed = async (what: string): Promise<Fault> => {
    const said = (await tail(logPath, saidFrom)).trim();
    return new Fault('FAILOVER_BOOT', said === '' ? what : `${what}: ${said}`, { program, logPath, said });
  };
  const endMs = performance.now() + timeoutMs;
  while (performance.now() < endMs) {
    if (end !== null) throw await failed(end);
    // A socket that was there before belongs to another QEMU; ours replaces it.
    const socket = await identity(qmpPath);
    if (socket !== null && socket !== socketBefore && await answers(qmpPath, endMs - performance.now())) {
      // It has answered, so it has a number.
      child.unref();
      return { pid: child.pid! };
    }
    await delay(pollMs);
  }
  child.kill('SIGKILL');
  throw await failed(`QEMU did not answer on ${qmpPath} within ${timeoutMs} ms and was ended`);
}

/** Whether this very guest still runs. */
export function isGuestRunning(pid: number, qmpPath: string): boolean {
  try {
    // A process that has ended and was not waited for has an empty command line.
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').some((argument) => argument.startsWith(`unix:${qmpPath.replaceAll(',', ',,')},`));
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

/** The number of the process that is this very guest, when nobody remembers it. Null: it does not run. */
export async function findGuest(qmpPath: string): Promise<number | null> {
  const numbers = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.find((pid) => isGuestRunning(pid, qmpPath)) ?? null;
}

/** Ends the guest at once, as pulling the plug does: by QMP, and if that does not help within `timeoutMs`, by signal. Nothing happens when it does not run. */
export async function stopGuest(pid: number, qmpPath: string, options: { readonly timeoutMs?: number } = {}): Promise<void> {
  const timeoutMs = options.timeoutMs ?? 5_000;
  const hasEnded = async (): Promise<boolean> => {
    const endMs = performance.now() + timeoutMs;
    while (isGuestRunning(pid, qmpPath)) {
      if (performance.now() > endMs) return false;
      await delay(pollMs);
    }
    return true;
  };
  if (!isGuestRunning(pid, qmpPath)) return;
  try {
    const qmp = await connectQmp(qmpPath, { connectTimeoutMs: timeoutMs });
    // QEMU may be gone before its answer is out.
    await qmp.execute('quit', undefined, { timeoutMs }).finally(() => qmp.close());
  } catch (error) {
    if (!isFault(error)) throw error;
  }
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (await hasEnded()) return;
    kill(pid, signal);
  }
  if (!(await hasEnded())) throw new Fault('FAILOVER_BOOT', `the guest’s QEMU (pid ${pid}) cannot be ended`, { pid, qmpPath });
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ESRCH';
}

/** Tells one socket from another at the same path; null where there is none. */
async function identity(path: string): Promise<string | null> {
  try {
    const { ino, ctimeMs } = await stat(path);
    return `${ino} ${ctimeMs}`;
  } catch (error) {
    if (isGone(error)) return null;
    throw error;
  }
}

/** QEMU makes the socket early and greets when all its devices stand. */
async function answers(qmpPath: string, timeoutMs: number): Promise<boolean> {
  try {
    const qmp = await connectQmp(qmpPath, { connectTimeoutMs: Math.max(1, timeoutMs) });
    await qmp.execute('query-status').finally(() => qmp.close());
    return true;
  } catch (error) {
    if (isFault(error)) return false;
    throw error;
  }
}

async function tail(path: string, from: number): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const at = Math.max(from, size - saidBytesMax);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(saidBytesMax), 0, saidBytesMax, at);
    return buffer.toString('utf8', 0, bytesRead);
  } finally {
    await file.close();
  }
}
