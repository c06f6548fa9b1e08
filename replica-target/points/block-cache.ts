/**
 * Pieces of files in memory, the least recently used given up when there are too many bytes. It holds only what was checked:
 * whoever loads a piece checks it before it goes in. Two who ask for one piece at once read it once.
 */

export class BlockCache {
  readonly #bytesMax: number;
  /** In order of last use. */
  readonly #blocks = new Map<string, Buffer>();
  readonly #loading = new Map<string, Promise<Buffer>>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number { return this.#bytes; }

  get(key: string): Buffer | undefined {
    const block = this.#blocks.get(key);
    if (block === undefined) return undefined;
    this.#blocks.delete(key);
    this.#blocks.set(key, block);
    return block;
  }

  /** `load` reads and checks it. */
  load(key: string, load: () => Promise<Buffer>): Promise<Buffer> {
    const known = this.#loading.get(key);
    if (known !== undefined) return known;
    const loading = load().then((block) => {
      this.put(key, block);
      return block;
    }).finally(() => this.#loading.delete(key));
    this.#loading.set(key, loading);
    return loading;
  }

  put(key: string, block: Buffer): void {
    const old = this.#blocks.get(key);
    if (old !== undefined) this.#drop(key, old);
    if (block.length > this.#bytesMax) return;
    this.#blocks.set(key, block);
    this.#bytes += block.length;
    for (const [oldest, bytes] of this.#blocks) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#drop(oldest, bytes);
    }
  }

  #drop(key: string, block: Buffer): void {
    this.#blocks.delete(key);
    this.#bytes -= block.length;
  }
}
