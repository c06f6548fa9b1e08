/**
 * Block status of a long stretch, from a server that answers as short as it likes: asks again where an answer ended, and joins
 * neighbours with the same flags. Invariant: what comes out covers the stretch exactly, in order, without gaps.
 */
import assert from 'node:assert/strict';

export interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  /** As the context defines them: `nbdState` for base:allocation, `nbdStateDirty` for a bitmap, the depth itself for qemu:allocation-depth. */
  readonly flags: number;
}

/** One question. Lengths have 32 bits; with base:allocation QEMU may look up all of it in its file system before it answers. */
export const statusBytesMax = 1024 * 1024 * 1024;

export async function* nbdExtentsOf(ask: (offset: number, length: number) => Promise<readonly NbdExtent[]>, from: number, to: number): AsyncGenerator<NbdExtent, void, undefined> {
  let held: NbdExtent | null = null;
  for (let at = from; at < to;) {
    const found = await ask(at, Math.min(statusBytesMax, to - at));
    assert(found.length > 0);
    for (const { offset, length, flags } of found) {
      assert(offset === at || offset >= to);
      const end = Math.min(offset + length, to);
      if (end <= at) break;
      if (held !== null && held.flags === flags) {
        held = { offset: held.offset, length: end - held.offset, flags };
      } else {
        if (held !== null) yield held;
        held = { offset: at, length: end - at, flags };
      }
      at = end;
    }
  }
  if (held !== null) yield held;
}
