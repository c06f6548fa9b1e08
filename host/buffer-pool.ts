/**
 * Large buffers, used again. First-touch page faults and garbage collection of fresh megabytes cost more than all else that a
 * run goes through (measured with an NBD server: 0.33 CPU seconds a GiB fresh, 0.15 from a pool). Giving back is voluntary: a buffer that
 * nobody gives back is collected like any other. Whoever gives one back must be its only holder.
 * Invariant: it keeps at most `keptBytesMax` of unused memory.
 */
const classBytesMin = 64 * 1024;

export class BufferPool {
  readonly #headroomBytes: number;
  readonly #keptBytesMax: number;
  readonly #free = new Map<number, Buffer[]>();
  /** What this pool made: a foreign buffer must not come in, and none may come in twice. */
  readonly #out = new WeakSet<ArrayBufferLike>();
  #keptBytes = 0;

  constructor(headroomBytes: number, keptBytesMax: number) {
    this.#headroomBytes = headroomBytes;
    this.#keptBytesMax = keptBytesMax;
  }

  get keptBytes(): number { return this.#keptBytes; }

  /** A buffer of `headroomBytes + bytes` bytes of undefined content, at the start of memory of its own. */
  take(bytes: number): Buffer {
    const wholeBytes = this.#headroomBytes + bytes;
    if (bytes < classBytesMin / 2) return Buffer.allocUnsafeSlow(wholeBytes);
    const classBytes = this.#headroomBytes + sizeClass(bytes);
    const free = this.#free.get(classBytes)?.pop();
    const whole = free ?? Buffer.allocUnsafeSlow(classBytes);
    if (free !== undefined) this.#keptBytes -= classBytes;
    this.#out.add(whole.buffer);
    return wholeBytes === classBytes ? whole : whole.subarray(0, wholeBytes);
  }

  /** Takes back what `take` gave, or any view of it; ignores all else. */
  give(buffer: Buffer): void {
    const memory = buffer.buffer;
    if (!this.#out.delete(memory)) return;
    if (this.#keptBytes + memory.byteLength > this.#keptBytesMax) return;
    this.#keptBytes += memory.byteLength;
    const classBytes = memory.byteLength;
    const free = this.#free.get(classBytes);
    const whole = Buffer.from(memory);
    if (free === undefined) this.#free.set(classBytes, [whole]);
    else free.push(whole);
  }

  /** Bytes that a run of `bytes` takes from memory. */
  takenBytes(bytes: number): number {
    return this.#headroomBytes + (bytes < classBytesMin / 2 ? bytes : sizeClass(bytes));
  }
}

/** The power of two that holds `bytes`, so that lengths that differ a little share their buffers. */
function sizeClass(bytes: number): number {
  return Math.max(classBytesMin, 2 ** Math.ceil(Math.log2(bytes)));
}
