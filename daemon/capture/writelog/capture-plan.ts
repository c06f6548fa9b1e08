/** Which capture suits a guest. Pure. */
import type { CaptureChoice } from '../capture.ts';

/** Below this pace a copy of the dirty blocks in each cycle weighs more on the guest than a log of its writes, ms. */
const logPaceMs = 2000;
/** A copy of this many bytes for each byte that was written: writes that are small and scattered, which a log carries as they are. */
const scatteredMin = 4;
/** So many bytes written for each one that changed: the same places over and over, which a copy carries once and a log writes each time. */
const rewrittenMin = 4;

/** Of the last cuts. */
export interface WritePattern {
  /** What the guest's devices were told to write, bytes. */
  readonly writtenBytes: number;
  /** What the deltas had, bytes: whole blocks of 64 KiB where they were copied, sectors where they came from a log. */
  readonly changedBytes: number;
}

export interface CapturePlanInput {
  readonly choice: CaptureChoice;
  readonly rpoMs: number;
  /** What is in use. */
  readonly now: 'cbt' | 'writelog';
  /** Null: not enough is known. */
  readonly pattern: WritePattern | null;
}

export interface CapturePlan { readonly capture: 'cbt' | 'writelog'; readonly why: string }

export function planCapture({ choice, rpoMs, now, pattern }: CapturePlanInput): CapturePlan {
  switch (choice) {
    case 'cbt': return { capture: 'cbt', why: 'chosen by the operator' };
    case 'writelog': return { capture: 'writelog', why: 'chosen by the operator' };
    case 'auto': return rpoMs < logPaceMs ? { capture: 'writelog', why: `a point every ${rpoMs} ms asks for a log of the writes` } : planByPattern(rpoMs, now, pattern);
    default: return choice satisfies never;
  }
}

function planByPattern(rpoMs: number, now: 'cbt' | 'writelog', pattern: WritePattern | null): CapturePlan {
  if (pattern !== null && now === 'cbt' && pattern.changedBytes >= pattern.writtenBytes * scatteredMin) {
    return { capture: 'writelog', why: `small and scattered writes: ${times(pattern.changedBytes, pattern.writtenBytes)} bytes would be copied for each byte written` };
  }
  if (pattern !== null && now === 'writelog') {
    if (pattern.writtenBytes >= pattern.changedBytes * rewrittenMin) return { capture: 'cbt', why: `the same places are written over and over, ${times(pattern.writtenBytes, pattern.changedBytes)} times between two points` };
    return { capture: 'writelog', why: 'small and scattered writes' };
  }
  return now === 'writelog' ? { capture: 'writelog', why: 'small and scattered writes' } : { capture: 'cbt', why: `a point every ${rpoMs / 1000} s is made by copying what is dirty` };
}

function times(more: number, less: number): string {
  return (more / Math.max(1, less)).toFixed(0);
}
