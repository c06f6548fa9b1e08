/**
 * A delta that lies in the spool: what QEMU copied of each disk, as runs that are read straight from the files. Ending it frees
 * the files and hands the outcome back to whoever cut it. It knows no QEMU.
 */
import assert from 'node:assert/strict';
import { runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import type { PointKind } from '../../journal/point.ts';
import type { CapturedDelta, CapturedRun, DiskSize } from './capture.ts';
import type { ExtentList } from './delta-image-map.ts';
import type { SpoolFile } from './spool.ts';

export interface CopiedDisk { readonly disk: number; readonly sizeBytes: number; readonly extents: ExtentList; readonly file: SpoolFile }

export type DeltaOutcome = 'acknowledged' | 'dropped' | 'unknown';

export interface SpooledDeltaFacts {
  readonly isRound: boolean;
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  /** Sizes of all disks, copied from or not. */
  readonly disks: readonly DiskSize[];
  /** In order of their index. */
  readonly copied: readonly CopiedDisk[];
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
  readonly #copied: readonly CopiedDisk[];
  readonly #settle: SpooledDeltaFacts['settle'];
  #ended: Promise<void> | null = null;

  constructor(facts: SpooledDeltaFacts) {
    this.isRound = facts.isRound;
    this.kind = facts.kind;
    this.cutAtMs = facts.cutAtMs;
    this.cutMonotonicMs = facts.cutMonotonicMs;
    this.disks = facts.disks;
    this.changedBytes = facts.copied.reduce((sum, { extents }) => sum + extents.bytes, 0);
    this.#copied = facts.copied;
    this.#settle = facts.settle;
  }

  *runs(): Iterable<CapturedRun> {
    for (const { disk, extents, file } of this.#copied) {
      for (let index = 0; index < extents.count; index += 1) {
        const { offset, length, hostOffset } = extents.at(index);
        const lengthMax = hostOffset === 'zero' ? zeroRunBytesMax : runBytesMax;
        for (let done = 0; done < length; done += lengthMax) {
          const place = { disk, offset: offset + done, length: Math.min(lengthMax, length - done) };
          if (hostOffset === 'zero') yield { kind: 'zero', ...place };
          else yield { kind: 'data', ...place, read: (into, at) => this.#read(file, into, at, place.length, hostOffset + done) };
        }
      }
    }
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
      for (const { file } of this.#copied) await file.remove();
    }
  }

  async #read(file: SpoolFile, into: Buffer, at: number, length: number, hostOffset: number): Promise<void> {
    assert(this.#ended === null, 'a run is read before its delta is ended');
    await file.read(into, at, length, hostOffset);
  }
}
