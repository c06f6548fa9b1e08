/**
 * A guest without QEMU, and what a capture sees of it. Each block says by its content which write made it, so that any byte can be traced; what its disks held at each cut is
 * kept as the truth that points are compared with. It keeps dirty bitmaps as QEMU does, by name, and they end with it.
 */
import { Fault } from '../../journal/fault.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { formatPoint, type PointId, type PointKind } from '../../journal/point.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import type { Capture, CapturedDelta, CapturedDisk, CapturedGuest, CapturedRun, CaptureFigures, CaptureStanding, FullPassOptions, FullPassSink, GuestPower } from '../../daemon/capture/capture.ts';
import type { Life, World } from './world.ts';

export const blockBytes = 512;
/** Blocks of each disk. */
export const diskBlocks = [24, 16] as const;

export const modelHardware = {
  version: 1, qemuVersion: '7.2.0', arch: 'x86_64', machine: { type: 'q35', options: {} }, memory: { sizeBytes: 128 * 1024 ** 2 }, ioThreads: [], devices: [],
  disks: diskBlocks.map((blocks, disk) => ({ name: `disk${disk}`, sizeBytes: blocks * blockBytes })), serialPorts: 0, notes: [],
};

export function emptyDisks(): Buffer[] {
  return diskBlocks.map((blocks) => Buffer.alloc(blocks * blockBytes));
}

export type RunState = 'prelaunch' | 'running' | 'paused' | 'shutdown';

export class ModelQemu {
  readonly disks: Buffer[];
  state: RunState;
  isThere = true;
  readonly bitmaps = new Map<string, Set<number>>();
  readonly #gone: (() => void)[] = [];

  constructor(disks: Buffer[], state: RunState) {
    this.disks = disks;
    this.state = state;
  }

  /** `write`: a number that no other write has. */
  write(disk: number, block: number, write: number): void {
    for (let at = 0; at < blockBytes; at += 4) this.disks[disk]!.writeUInt32LE(write, block * blockBytes + at);
    for (const bitmap of this.bitmaps.values()) bitmap.add(disk * 1000 + block);
  }

  snapshot(): Buffer[] {
    return this.disks.map((bytes) => Buffer.from(bytes));
  }

  whenGone(then: () => void): void {
    if (this.isThere) this.#gone.push(then);
    else then();
  }

  kill(): void {
    if (!this.isThere) return;
    this.isThere = false;
    this.state = 'shutdown';
    this.bitmaps.clear();
    for (const then of this.#gone.splice(0)) then();
  }
}

/** What the points of a group hold, as their guests were when they were cut. */
export type Truth = Map<string, Buffer[]>;

export interface ModelCaptureOptions {
  readonly world: World;
  readonly life: Life;
  /** The guest's QEMU as it is now; null: none. */
  readonly qemu: () => ModelQemu | null;
  readonly truth: Truth;
  /** Planted: a bitmap is cleared by the cut that reads it. */
  readonly isTrimmedEarly?: boolean;
  /** Planted: the second disk is copied a moment after the first. */
  readonly torn?: (qemu: ModelQemu) => void;
}

const pointName = (point: PointId): string => `point ${formatPoint(point)}`;
const cutName = (point: PointId): string => `cut ${formatPoint(point)}`;
/** Runs of a pass between two pauses. */
const passStep = 4;

export class ModelCapture implements Capture {
  readonly #o: ModelCaptureOptions;
  #linked: ModelQemu | null = null;
  #base: PointId | null = null;
  #closed: ((fault: Fault) => void)[] = [];

  constructor(options: ModelCaptureOptions) {
    this.#o = options;
  }

  async connect(): Promise<CapturedGuest> {
    const { life, qemu } = this.#o;
    const found = await life.act(qemu);
    if (found === null || !found.isThere) throw new Fault('QMP_UNREACHABLE', 'there is no QEMU');
    this.#linked = found;
    this.#base = null;
    found.whenGone(() => {
      if (this.#linked !== found) return;
      this.#linked = null;
      for (const closed of this.#closed.splice(0)) closed(new Fault('QMP_CLOSED', 'QEMU has ended'));
    });
    return { disks: this.disks(), hardware: modelHardware };
  }

  closed(): Promise<Fault> {
    return new Promise((resolve) => { this.#closed.push(resolve); });
  }

  disks(): readonly CapturedDisk[] {
    return diskBlocks.map((blocks, disk) => ({ disk, name: `disk${disk}`, sizeBytes: blocks * blockBytes }));
  }

  measureDirtyBytes(): Promise<number> {
    return this.#ask((qemu) => (this.#base === null ? 0 : (qemu.bitmaps.get(pointName(this.#base))?.size ?? 0) * blockBytes));
  }

  reconcile(held: PointId | null): Promise<CaptureStanding> {
    return this.#ask((qemu) => {
      this.#base = null;
      const name = held === null ? null : [pointName(held), cutName(held)].find((one) => qemu.bitmaps.has(one));
      const bitmap = name == null ? undefined : qemu.bitmaps.get(name)!;
      qemu.bitmaps.clear();
      if (bitmap === undefined) return { standing: 'resync', why: held === null ? 'the target holds nothing' : `no bitmap of ${formatPoint(held)}` };
      qemu.bitmaps.set(pointName(held!), bitmap);
      this.#base = held;
      return { standing: 'ready' };
    });
  }

  cut(base: PointId, next: PointId, kind: PointKind): Promise<CapturedDelta> {
    const { world, truth, torn } = this.#o;
    return this.#ask((qemu) => {
      if (this.#base === null) throw new Fault('GUEST_CHANGED', 'reconcile first');
      this.#base = null;
      const dirty = [...qemu.bitmaps.get(pointName(base))!].sort((a, b) => a - b);
      truth.set(formatPoint(next), qemu.snapshot());
      const copied = new Map<number, Buffer>();
      const copy = (disk: number): void => {
        for (const key of dirty) if (Math.floor(key / 1000) === disk) copied.set(key, Buffer.from(qemu.disks[disk]!.subarray((key % 1000) * blockBytes, (key % 1000 + 1) * blockBytes)));
      };
      copy(0);
      torn?.(qemu);
      copy(1);
      qemu.bitmaps.set(cutName(next), new Set());
      if (this.#o.isTrimmedEarly === true) qemu.bitmaps.get(pointName(base))!.clear();
      world.count('cuts');
      const runs = dirty.map((key): CapturedRun => ({
        kind: 'data', disk: Math.floor(key / 1000), offset: (key % 1000) * blockBytes, length: blockBytes,
        read: (into, at) => { copied.get(key)!.copy(into, at); return Promise.resolve(); },
      }));
      return {
        isRound: false, kind, cutAtMs: world.nowMs, cutMonotonicMs: world.nowMs, disks: this.disks().map(({ disk, sizeBytes }) => ({ disk, sizeBytes })),
        changedBytes: runs.length * blockBytes, runs: () => runs, end: (outcome) => this.#end(qemu, base, next, outcome),
      };
    });
  }

  async fullPass(sink: FullPassSink, { onProgress, signal }: FullPassOptions): Promise<void> {
    const { life, world } = this.#o;
    const qemu = await this.#ask((one) => {
      one.bitmaps.clear();
      one.bitmaps.set('pass', new Set());
      return one;
    });
    world.count('full passes');
    const totalBytes = diskBlocks.reduce((sum, blocks) => sum + blocks * blockBytes, 0);
    let doneBytes = 0;
    for (const [disk, blocks] of diskBlocks.entries()) {
      for (let block = 0; block < blocks; block += 1) {
        if (block % passStep === 0) await life.delay(1 + world.dice.integer(8), signal);
        signal.throwIfAborted();
        if (!qemu.isThere) throw new Fault('QMP_CLOSED', 'QEMU has ended');
        const buffer = sink.buffers?.take(blockBytes) ?? Buffer.alloc(recordHeaderBytes + blockBytes);
        qemu.disks[disk]!.copy(buffer, recordHeaderBytes, block * blockBytes, (block + 1) * blockBytes);
        await sink.write(disk, block * blockBytes, buffer, recordHeaderBytes);
        doneBytes += blockBytes;
        onProgress({ doneBytes, totalBytes });
      }
    }
  }

  settlePass(base: PointId): Promise<void> {
    return this.#ask((qemu) => {
      const passed = qemu.bitmaps.get('pass');
      if (passed === undefined) throw new Fault('GUEST_CHANGED', 'another QEMU than the one that was passed over');
      qemu.bitmaps.clear();
      qemu.bitmaps.set(pointName(base), passed);
      this.#base = base;
    });
  }

  begin(base: PointId): Promise<void> {
    return this.#ask((qemu) => {
      if (qemu.state === 'running') throw new Fault('GUEST_CHANGED', 'the guest runs already');
      qemu.bitmaps.clear();
      qemu.bitmaps.set(pointName(base), new Set());
    });
  }

  power(): GuestPower {
    const { life, world } = this.#o;
    return {
      keepThroughOff: () => Promise.resolve(null),
      shutDown: async ({ limitMs, signal }) => {
        const takesMs = world.dice.integer(2 * limitMs);
        await life.delay(Math.min(takesMs, limitMs), signal);
        if (takesMs > limitMs) return false;
        await this.#ask((qemu) => { qemu.state = 'shutdown'; });
        return true;
      },
      standStill: () => this.#ask((qemu) => { qemu.state = 'paused'; }),
      startAgain: () => this.#ask((qemu) => { qemu.state = 'running'; }),
      images: () => this.#ask(() => []),
      end: () => this.#ask((qemu) => { if (qemu.state !== 'running') qemu.kill(); }),
      runState: () => this.#ask((qemu) => ({ status: qemu.state, running: qemu.state === 'running' })),
      pause: () => this.#ask((qemu) => { qemu.state = 'paused'; }),
      goOn: () => this.#ask((qemu) => { qemu.state = 'running'; }),
    };
  }

  figures(): CaptureFigures {
    return { capture: 'cbt', captureWhy: 'a model', logBytes: 0, dirtyBytes: 0, spoolBytes: 0, spoolBudgetBytes: 0, inPathMs: 0, cutMs: 0, cycles: 0, logCuts: 0, droppedCycles: 0, rounds: 0 };
  }

  agentChannel(): Promise<AgentChannel> { return Promise.resolve({ kind: 'none', why: 'a model' }); }
  pausePass(): Promise<void> { return Promise.resolve(); }
  choose(): void { /* there is one way */ }
  rest(): Promise<void> { return Promise.resolve(); }
  park(): Promise<void> { return Promise.resolve(); }
  release(): Promise<void> { return this.#ask((qemu) => qemu.bitmaps.clear()); }

  close(): Promise<void> {
    this.#linked = null;
    for (const closed of this.#closed.splice(0)) closed(new Fault('QMP_CLOSED', 'closed here'));
    return Promise.resolve();
  }

  async #ask<T>(act: (qemu: ModelQemu) => T): Promise<T> {
    const asked = this.#linked;
    return this.#o.life.act(() => {
      if (asked === null || !asked.isThere || this.#linked !== asked) throw new Fault('QMP_CLOSED', 'there is no connection to QEMU');
      return act(asked);
    });
  }

  async #end(qemu: ModelQemu, base: PointId, next: PointId, outcome: 'acknowledged' | 'dropped' | 'unknown'): Promise<void> {
    if (outcome === 'unknown') return;
    await this.#ask((one) => {
      if (one !== qemu) throw new Fault('QMP_CLOSED', 'another QEMU');
      if (outcome === 'dropped') qemu.bitmaps.delete(cutName(next));
      else {
        const since = qemu.bitmaps.get(cutName(next))!;
        qemu.bitmaps.clear();
        qemu.bitmaps.set(pointName(next), since);
      }
      this.#base = outcome === 'dropped' ? base : next;
    });
  }
}
