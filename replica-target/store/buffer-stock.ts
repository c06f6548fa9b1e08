/** Buffers of one size that are used again. A few are kept; more are made as they are needed, and let go of. Their content is whatever was there. */
export class BufferStock {
  readonly #bytes: number;
  readonly #keptMax: number;
  readonly #kept: Buffer[] = [];

  constructor(bytes: number, keptMax: number) {
    this.#bytes = bytes;
    this.#keptMax = keptMax;
  }

  take(): Buffer {
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(this.#bytes);
  }

  /** It is nobody's any more. */
  give(buffer: Buffer): void {
    if (this.#kept.length < this.#keptMax) this.#kept.push(buffer);
  }
}
