/**
 * Runs decoders in a process of their own and watches it from outside: an input that never ends, or that fills the heap, cannot be
 * stopped by who decodes it. The input that is being decoded lies in a file that both know. After a process died another one goes
 * on with the next decoder.
 */
import { fork } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Crash, DecoderFigures } from './fuzz-one.ts';

/** Beyond it an input counts as endless, ms of the process' own processor time: a machine that has other work makes nothing endless. */
const hangMs = 2_500;
/** And of one that only waits, ms. */
const waitMsMax = 60_000;
const lookEveryMs = 200;
/** Ticks of /proc/PID/stat in a second: USER_HZ, which Linux has kept at that for programs. */
const ticksPerSecond = 100;
/** A decoder that needs more than this for an input of at most some MiB is none that is bounded. */
const heapMegabytesMax = 512;

export interface WorkerOrder {
  readonly decoders: readonly string[];
  readonly seed: number;
  readonly msEach: number;
  readonly inputsMax: number;
  /** They are of planted.ts. */
  readonly isPlanted: boolean;
  readonly notePath: string;
}

export type WorkerNews =
  | { readonly news: 'decoder'; readonly decoder: string }
  | { readonly news: 'done'; readonly figures: DecoderFigures; readonly crash: Crash | null; readonly memoryPeakBytes: number };

export interface Verdict { readonly figures: readonly DecoderFigures[]; readonly crashes: readonly Crash[]; readonly memoryPeakBytes: number }

const headBytes = 16;

/** The file in which a process says which input it decodes: how many were begun (8 bytes), the present one's length (8; -1: none), its bytes. */
export class InputNote {
  readonly #file: number;
  readonly #head = Buffer.alloc(headBytes);
  #count = 0n;

  constructor(path: string) {
    this.#file = openSync(path, 'w');
  }

  put(input: Buffer | null): void {
    this.#count += 1n;
    this.#head.writeBigUInt64LE(this.#count, 0);
    this.#head.writeBigInt64LE(BigInt(input?.length ?? -1), 8);
    // Bytes first: who looks in between sees the one before, whose time is over.
    if (input !== null) writeSync(this.#file, input, 0, input.length, headBytes);
    writeSync(this.#file, this.#head, 0, headBytes, 0);
  }
}

export async function fuzz(order: Omit<WorkerOrder, 'notePath'>): Promise<Verdict> {
  const folder = mkdtempSync(join(tmpdir(), 'afterimage-fuzz-run-'));
  const figures: DecoderFigures[] = [];
  const crashes: Crash[] = [];
  let memoryPeakBytes = 0;
  try {
    for (let left = order.decoders; left.length > 0;) {
      const died = await runProcess({ ...order, decoders: left, notePath: join(folder, 'input') }, (news) => {
        if (news.news !== 'done') return;
        figures.push(news.figures);
        memoryPeakBytes = Math.max(memoryPeakBytes, news.memoryPeakBytes);
        if (news.crash !== null) crashes.push({ ...news.crash, input: Buffer.from(news.crash.input) });
      });
      if (died === null) break;
      crashes.push(died);
      left = left.slice(left.indexOf(died.decoder) + 1);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { figures, crashes, memoryPeakBytes };
}

/** Null when it came to its end; else what it died of, with the input. */
function runProcess(order: WorkerOrder, onNews: (news: WorkerNews) => void): Promise<Crash | null> {
  const child = fork(fileURLToPath(new URL('./fuzz-worker.js', import.meta.url)), {
    execArgv: [`--max-old-space-size=${heapMegabytesMax}`], serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  child.send(order);
  let decoder = order.decoders[0] ?? '';
  let said = '';
  let isHanging = false;
  const seen = { count: -1n, sinceMs: performance.now(), usedMs: 0 };
  const timer = setInterval(() => {
    const { count, length } = readHead(order.notePath);
    const nowMs = performance.now();
    const usedMs = usedMsOf(child.pid);
    if (count !== seen.count) Object.assign(seen, { count, sinceMs: nowMs, usedMs });
    if (length < 0 || (usedMs - seen.usedMs < hangMs && nowMs - seen.sinceMs < waitMsMax)) return;
    isHanging = true;
    child.kill('SIGKILL');
  }, lookEveryMs);
  child.stderr?.on('data', (bytes: Buffer) => { said = (said + bytes.toString()).slice(-4000); });
  child.on('message', (news: WorkerNews) => {
    if (news.news === 'decoder') decoder = news.decoder;
    onNews(news);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearInterval(timer);
      if (code === 0) return resolve(null);
      const input = readInput(order.notePath);
      if (isHanging) return resolve({ decoder, kind: 'hang', what: `did not end within ${hangMs} ms of processor time`, input });
      if (/heap out of memory/.test(said)) return resolve({ decoder, kind: 'memory', what: `the heap grew beyond ${heapMegabytesMax} MiB`, input });
      resolve({ decoder, kind: 'error', what: `the process ended (${signal ?? code}): ${said}`, input });
    });
  });
}

/** Processor time of a process so far, ms (proc(5), /proc/PID/stat, utime and stime). */
function usedMsOf(pid: number | undefined): number {
  try {
    // The name in the second field may hold anything but ends with the last bracket.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 1000 / ticksPerSecond;
  } catch (error) {
    // It has just ended.
    if (typeof (error as NodeJS.ErrnoException).code !== 'string') throw error;
    return 0;
  }
}

function readHead(path: string): { readonly count: bigint; readonly length: number } {
  const head = Buffer.alloc(headBytes);
  try {
    const file = openSync(path, 'r');
    const read = readSync(file, head, 0, headBytes, 0);
    closeSync(file);
    if (read === headBytes) return { count: head.readBigUInt64LE(0), length: Number(head.readBigInt64LE(8)) };
  } catch (error) {
    // The process has not begun.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return { count: -1n, length: -1 };
}

function readInput(path: string): Buffer {
  const { length } = readHead(path);
  return length < 0 ? Buffer.alloc(0) : readFileSync(path).subarray(headBytes, headBytes + length);
}
