/**
 * A delta that lies in the spool: of each disk a part, as runs that are read straight from files there. Ending it frees what only
 * it needs and hands the outcome back to whoever cut it. It knows no QEMU.
 */
import assert from 'node:assert/strict';
import { runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import type { PointKind } from '../../journal/point.ts';
import type { CapturedDelta, CapturedRun, DiskSize } from './capture.ts';
import type { ExtentList } from './delta-image-map.ts';
import type { SpoolFile } from './spool.ts';

/** What of one disk is in a delta. */
export interface DeltaPart {
  readonly disk: number;
  /** Of all runs. */
  readonly bytes: number;
  /** In order of offset. They are read until the part is removed. */
  runs(): Iterable<CapturedRun>;
  /** Frees what nobody else needs. */
  remove(): Promise<void>;
}

/** What QEMU copied into a delta image. */
export class CopiedDisk implements DeltaPart {
  readonly disk: number;
  readonly extents: ExtentList;
  readonly #file: SpoolFile;

  constructor(disk: number, extents: ExtentList, file: SpoolFile) {
    this.disk = disk;
    this.extents = extents;
    this.#file = file;
  }

  get bytes(): number { return this.extents.bytes; }

  *runs(): Iterable<CapturedRun> {
    for (let index = 0; index < this.extents.count; index += 1) {
      const { offset, length, hostOffset } = this.extents.at(index);
      const lengthMax = hostOffset === 'zero' ? zeroRunBytesMax : runBytesMax;
      for (let done = 0; done < length; done += lengthMax) {
        const place = { disk: this.disk, offset: offset + done, length: Math.min(lengthMax, length - done) };
        if (hostOffset === 'zero') yield { kind: 'zero', ...place };
        else yield { kind: 'data', ...place, read: (into, at) => this.#file.read(into, at, place.length, hostOffset + done) };
      }
    }
  }

  remove(): Promise<void> {
    return this.#file.recycle();
  }
}

export type DeltaOutcome = 'acknowledged' | 'dropped' | 'unknown';

export interface SpooledDeltaFacts {
  readonly isRound: boolean;
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  /** Sizes of all disks, changed or not. */
  readonly disks: readonly DiskSize[];
  /** In order of their disk. */
  readonly parts: readonly DeltaPart[];
  /** Makes the guest clean of this delta. */
  settle(outcome: DeltaOutcome): Promise<void>;
}

export class SpooledDelta implements CapturedDelta {
  readonly isRound: boolean;
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  readonly disks: readonly DiskSize[];
  readonly changedBytes: number;
  readonly #parts: readonly DeltaPart[];
  readonly #settle: SpooledDeltaFacts['settle'];
  #ended: Promise<void> | null = null;

  constructor(facts: SpooledDeltaFacts) {
    this.isRound = facts.isRound;
    this.kind = facts.kind;
    this.cutAtMs = facts.cutAtMs;
    this.cutMonotonicMs = facts.cutMonotonicMs;
    this.disks = facts.disks;
    this.changedBytes = facts.parts.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#parts = facts.parts;
    this.#settle = facts.settle;
  }

  *runs(): Iterable<CapturedRun> {
    for (const part of this.#parts) for (const run of part.runs()) yield run.kind === 'zero' ? run : { ...run, read: (into, at) => this.#read(run, into, at) };
  }

  end(outcome: DeltaOutcome): Promise<void> {
    assert(this.#ended === null, 'a delta is ended once');
    this.#ended = this.#end(outcome);
    return this.#ended;
  }

  async #end(outcome: DeltaOutcome): Promise<void> {
    try {
      await this.#settle(outcome);
    } finally {
      for (const part of this.#parts) await part.remove();
    }
  }

  async #read(run: CapturedRun & { readonly kind: 'data' }, into: Buffer, at: number): Promise<void> {
    assert(this.#ended === null, 'a run is read before its delta is ended');
    await run.read(into, at);
  }
}
