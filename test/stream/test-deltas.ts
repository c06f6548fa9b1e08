/** Deltas as a capture would hand them over, made up by a test. */
import type { CapturedDelta, CapturedRun } from '../../daemon/capture/capture.ts';

/** Also writes the delta into the model. */
export function randomDelta(fraction: () => number, model: Buffer): CapturedDelta {
  const runs: { offset: number; length: number; fill: number }[] = [];
  for (let at = 0; at < model.length;) {
    const offset = at + Math.floor(fraction() * 2000) * 512;
    const length = Math.min(Math.ceil(fraction() ** 2 * 2048) * 512, model.length - offset);
    if (length <= 0) break;
    const fill = fraction() < 0.2 ? 0 : 1 + Math.floor(fraction() * 255);
    runs.push({ offset, length, fill });
    model.fill(fill, offset, offset + length);
    at = offset + length;
  }
  return {
    isRound: false, kind: 'crash', cutAtMs: 1, cutMonotonicMs: 1, disks: [{ disk: 0, sizeBytes: model.length }], changedBytes: runs.reduce((sum, { length }) => sum + length, 0),
    *runs(): Iterable<CapturedRun> {
      for (const { offset, length, fill } of runs) {
        yield { kind: 'data', disk: 0, offset, length, read: (into, at) => { into.fill(fill, at, at + length); return Promise.resolve(); } };
      }
    },
    end: () => Promise.resolve(),
  };
}
