/** Which capture suits a guest. Pure. */
import type { CaptureChoice } from '../capture.ts';

/** Below this pace a copy of the dirty blocks in each cycle weighs more on the guest than a log of its writes, ms. */
const logPaceMs = 2000;

export interface CapturePlan { readonly capture: 'cbt' | 'writelog'; readonly why: string }

export function planCapture({ choice, rpoMs }: { readonly choice: CaptureChoice; readonly rpoMs: number }): CapturePlan {
  switch (choice) {
    case 'cbt': return { capture: 'cbt', why: 'chosen by the operator' };
    case 'writelog': return { capture: 'writelog', why: 'chosen by the operator' };
    case 'auto': return rpoMs < logPaceMs
      ? { capture: 'writelog', why: `a point every ${rpoMs} ms asks for a log of the writes` }
      : { capture: 'cbt', why: `a point every ${rpoMs / 1000} s is made by copying what is dirty` };
    default: return choice satisfies never;
  }
}
