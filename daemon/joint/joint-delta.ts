/** The deltas of several guests, or a round of one of them, as one delta of their group. Ended once, all together. */
import type { PointKind } from '../../journal/point.ts';
import type { JointFacts } from '../../journal/seal.ts';
import type { CapturedDelta, CapturedDisk, CapturedRun, DiskSize } from '../capture/capture.ts';
import { allOf } from './joint-power.ts';

export interface JointDeltaFacts {
  /** `first`: the group's number of the guest's first disk. In that order. */
  readonly parts: readonly { readonly first: number; readonly delta: CapturedDelta }[];
  /** All disks of the group, by number. */
  readonly sizes: readonly CapturedDisk[];
  readonly kind: PointKind;
  readonly isRound: boolean;
  readonly about: JointFacts;
}

export class JointDelta implements CapturedDelta {
  readonly isRound: boolean;
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  readonly about: JointFacts;
  readonly disks: readonly DiskSize[];
  readonly changedBytes: number;
  readonly #parts: JointDeltaFacts['parts'];

  constructor({ parts, sizes, kind, isRound, about }: JointDeltaFacts) {
    this.#parts = parts;
    this.isRound = isRound;
    this.kind = kind;
    this.about = about;
    // What the point is sure to hold is what there was at the first of the instants.
    this.cutAtMs = Math.min(...parts.map(({ delta }) => delta.cutAtMs));
    this.cutMonotonicMs = Math.min(...parts.map(({ delta }) => delta.cutMonotonicMs));
    const cut = new Map(parts.flatMap(({ first, delta }) => delta.disks.map(({ disk, sizeBytes }) => [first + disk, sizeBytes] as const)));
    // A round is of the disks that it copies; a point has a size for each.
    this.disks = isRound ? [...cut].map(([disk, sizeBytes]) => ({ disk, sizeBytes })) : sizes.map(({ disk, sizeBytes }) => ({ disk, sizeBytes: cut.get(disk) ?? sizeBytes }));
    this.changedBytes = parts.reduce((total, { delta }) => total + delta.changedBytes, 0);
  }

  *runs(): Iterable<CapturedRun> {
    for (const { first, delta } of this.#parts) for (const run of delta.runs()) yield { ...run, disk: first + run.disk };
  }

  async end(outcome: 'acknowledged' | 'dropped' | 'unknown'): Promise<void> {
    await allOf(this.#parts.map(({ delta }) => delta.end(outcome)));
  }
}
