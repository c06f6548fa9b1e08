/**
 * A full pass: every disk whole into a sink, by QEMU's own mirror jobs, which write to an NBD server in this process. The mirror
 * only reads the guest's disk and is never completed, so that no pivot can ever happen: each job is cancelled as soon as every
 * block of its disk has been handed over once (covered-blocks.ts). What the guest writes meanwhile is not this file's business:
 * the caller has made a bitmap on every disk before.
 *
 * Invariants: when it resolves, everything that was handed to the sink has been taken, and nothing of it is left in QEMU; when it
 * rejects, nothing is left there either, unless the connection is over. The mirror copies in the background: it delays no write of the guest, but
 * QEMU's drains wait for its requests, which the NBD server answers or ends within its limit.
 */
import { chmod, chown, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import type { NbdExport, NbdServer } from '../../qemu/nbd-handler.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { FullPassOptions, FullPassSink } from './capture.ts';
import { CoveredBlocks, coveredBlockBytes } from './covered-blocks.ts';
import { removeJobs, removeNodes, unlessRefused } from './guest-objects.ts';
import type { JobWatch } from './job-watch.ts';
import { nodeName } from './object-names.ts';

export interface PassDisk {
  readonly disk: number;
  /** The node directly under the device: a mirror is made of a root. */
  readonly topNode: string;
  readonly sizeBytes: number;
}

export interface PassContext {
  readonly qmp: QmpConnection;
  readonly watch: JobWatch;
  readonly clock: Clock;
  readonly groupId: string;
  readonly stamp: string;
  readonly owner: { readonly uid: number; readonly gid: number };
  readonly onFault: (fault: Fault) => void;
  /** Memory that QEMU may have under way for each disk, and so what the link must take within the NBD server's limit. */
  readonly bufferBytes: number;
  /** The NBD server's limit; its own when absent. */
  readonly stallLimitMs?: number | undefined;
  /** Where the NBD server's socket is to be, when its path is short enough: a fixed place, so that a death leaves no more than one. */
  readonly socketPath: string;
}

/** A unix socket's path has at most 107 bytes. */
const socketPathBytesMax = 107;

/** Disks mirrored at once when there is no rate limit: two keep the stream busy, more only make QEMU's buffers larger. */
const atOnceMax = 2;
/** With more than this, QEMU's mirror is no faster; twice this within the NBD server's 20 s is a link of 0.8 MiB/s. */
export const passBufferBytesMax = 8 * 1024 * 1024;
/** What one request of a mirror may hold: 50 KiB/s are enough for it. */
export const passBufferBytesMin = 1024 * 1024;
/** Between two calls of onProgress, ms. */
const tellMs = 200;
/** Between two looks at a job, ms. */
const jobLookMs = 25;

/** Holds the jobs of a pass under way, or lets them go on. */
export class PassPause {
  #isPaused = false;
  readonly #running = new Set<string>();
  #qmp: QmpConnection | null = null;

  async set(isPaused: boolean): Promise<void> {
    if (isPaused === this.#isPaused) return;
    this.#isPaused = isPaused;
    // Refused when the job has just ended.
    for (const id of this.#running) await this.#apply(id);
  }

  async began(qmp: QmpConnection, id: string): Promise<void> {
    this.#qmp = qmp;
    this.#running.add(id);
    if (this.#isPaused) await this.#apply(id);
  }

  ended(id: string): void {
    this.#running.delete(id);
  }

  async #apply(id: string): Promise<void> {
    await unlessRefused(this.#qmp!.execute(this.#isPaused ? 'job-pause' : 'job-resume', { id }));
  }
}

export async function mirrorDisks(context: PassContext, disks: readonly PassDisk[], sink: FullPassSink, options: FullPassOptions, pause: PassPause): Promise<void> {
  const over = new AbortController();
  const abort = (): void => over.abort(options.signal.reason);
  options.signal.addEventListener('abort', abort, { once: true });
  if (options.signal.aborted) abort();
  const covered = disks.map(({ sizeBytes }) => new CoveredBlocks(sizeBytes));
  const handing = new Set<Promise<void>>();
  const totalBytes = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let toldMs = 0;
  const tell = (): void => options.onProgress({ doneBytes: covered.reduce((sum, { bytes }) => sum + bytes, 0), totalBytes });
  /** The sink's promise, as the NBD server awaits it; what it took is covered, what it refused ends the pass. */
  const hand = (index: number, offset: number, length: number, taken: Promise<void>): Promise<void> => {
    const done = taken.then(() => {
      covered[index]!.add(offset, length);
      if (context.clock.monotonicMs() - toldMs < tellMs) return;
      toldMs = context.clock.monotonicMs();
      tell();
    }, (error: unknown) => { over.abort(error); throw error; }).finally(() => handing.delete(done));
    handing.add(done);
    done.catch(() => undefined); // also awaited by the server, and told through `over`
    return done;
  };
  const exports = new Map(disks.map(({ disk, sizeBytes }, index): [string, NbdExport] => [`disk${disk}`, {
    sizeBytes,
    handler: {
      write: (offset, buffer, headroomBytes) => hand(index, offset, buffer.length - headroomBytes, sink.write(disk, offset, buffer, headroomBytes)),
      zero: (offset, length) => hand(index, offset, length, sink.zero(disk, offset, length)),
      // Durable is what the target acknowledges, and that is asked for after the pass.
      flush: () => Promise.resolve(),
    },
  }]));

  const isShort = Buffer.byteLength(context.socketPath) <= socketPathBytesMax;
  const folder = isShort ? null : await mkdtemp(join(tmpdir(), 'afterimage-'));
  const path = folder === null ? context.socketPath : join(folder, 'pass');
  let server: NbdServer | null = null;
  try {
    server = await listenNbd({ path, exports, onFault: context.onFault, ...(context.stallLimitMs === undefined ? {} : { stallLimitMs: context.stallLimitMs }), ...(sink.buffers === undefined ? {} : { buffers: sink.buffers }) });
    if (process.getuid?.() === 0) {
      await chown(path, context.owner.uid, context.owner.gid);
      // The folder stays ours: whoever owns it could put a link in the socket's place, for us to give them what it leads to.
      if (folder !== null) await chmod(folder, 0o711);
    }
    const waiting = disks.map((disk, index) => ({ disk, blocks: covered[index]! }));
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await mirrorDisk(context, next.disk, next.blocks, path, options, pause, over.signal);
    };
    const workers = Array.from({ length: options.rateBytesPerSecond > 0 || context.bufferBytes < passBufferBytesMax ? 1 : Math.min(atOnceMax, disks.length) }, () => work().catch((error: unknown) => { over.abort(error); throw error; }));
    await Promise.allSettled(workers);
    over.signal.throwIfAborted();
    await Promise.all([...handing]);
    tell();
  } catch (error) {
    // First the server: a request that waits for a sink that takes nothing more would hold up the jobs' end.
    await server?.close();
    await cleanUp(context);
    throw error;
  } finally {
    options.signal.removeEventListener('abort', abort);
    await server?.close();
    if (folder !== null) await rm(folder, { recursive: true, force: true });
  }
}

async function mirrorDisk(
  context: PassContext, { disk, topNode }: PassDisk, blocks: CoveredBlocks, path: string, options: FullPassOptions, pause: PassPause, signal: AbortSignal,
): Promise<void> {
  const { qmp, watch, groupId, stamp } = context;
  const target = nodeName(groupId, stamp, disk, 'pass');
  const id = nodeName(groupId, stamp, disk, 'job');
  signal.throwIfAborted();
  // Without "discard" zeroes come as zeroes, none is dropped on the way.
  await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': target, server: { type: 'unix', path }, export: `disk${disk}` });
  await qmp.execute('blockdev-mirror', {
    'job-id': id, device: topNode, target, sync: 'full', 'copy-mode': 'background', granularity: coveredBlockBytes, 'buf-size': context.bufferBytes,
    'filter-node-name': nodeName(groupId, stamp, disk, 'filter'), 'on-source-error': 'report', 'on-target-error': 'report', 'auto-dismiss': false,
    ...(options.rateBytesPerSecond > 0 ? { speed: options.rateBytesPerSecond } : {}),
  });
  await pause.began(qmp, id);
  try {
    let state = watch.state(id);
    while (!blocks.isComplete && state !== 'ready' && state !== 'concluded') {
      await context.clock.delay(jobLookMs, signal);
      state = watch.state(id);
    }
    // Never completed, only cancelled: a completed mirror would put the guest onto our node. Refused when it has just failed.
    await unlessRefused(qmp.execute('job-cancel', { id }));
    await watch.until(id, ['concluded']);
    const { error } = await watch.result(id);
    if (!blocks.isComplete && state !== 'ready') throw new Fault('QMP_COMMAND', `QEMU could not copy disk ${disk} whole: ${error ?? 'its mirror ended'}`, { disk, job: id });
  } finally {
    pause.ended(id);
  }
  await qmp.execute('blockdev-del', { 'node-name': target });
}

async function cleanUp({ qmp, watch, groupId, stamp }: PassContext): Promise<void> {
  const prefix = nodeName(groupId, stamp, 0, 'job').slice(0, -2);
  try {
    await removeJobs(qmp, watch, prefix);
    const left = await removeNodes(qmp, prefix);
    if (left.length > 0) throw new Fault('GUEST_CHANGED', `nodes of ours would not go: ${left.join(', ')}`, { left });
  } catch (error) {
    if (!isFault(error, 'QMP_CLOSED')) throw error;
  }
}
