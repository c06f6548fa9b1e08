/**
 * Files that are kept open for reading, the least recently used closed when there are too many. A file in use is never closed:
 * whoever has begun to read may end, also when the file's name is gone meanwhile.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';

interface OpenFile { readonly opening: Promise<DiskFile>; file: DiskFile | null; users: number; isForgotten: boolean }

export class OpenFiles {
  readonly #disk: Disk;
  readonly #countMax: number;
  /** In order of last use. */
  readonly #files = new Map<string, OpenFile>();
  #closing: Promise<void> = Promise.resolve();

  constructor(disk: Disk, countMax: number) {
    this.#disk = disk;
    this.#countMax = countMax;
  }

  get count(): number { return this.#files.size; }

  async use<T>(path: string, work: (file: DiskFile) => Promise<T>): Promise<T> {
    const open = this.#take(path);
    try {
      return await work(await open.opening);
    } finally {
      open.users--;
      if (open.users === 0 && open.isForgotten) this.#close(open);
      else this.#shrink();
    }
  }

  /** A file that is open, for one call that is over when it returns. */
  ready(path: string): DiskFile | null {
    return this.#files.get(path)?.file ?? null;
  }

  /** Closes it once nobody uses it. */
  forget(path: string): void {
    const open = this.#files.get(path);
    if (open === undefined) return;
    this.#files.delete(path);
    open.isForgotten = true;
    if (open.users === 0) this.#close(open);
  }

  async close(): Promise<void> {
    for (const path of [...this.#files.keys()]) this.forget(path);
    await this.#closing;
  }

  #take(path: string): OpenFile {
    const known = this.#files.get(path);
    if (known !== undefined) {
      known.users++;
      this.#files.delete(path);
      this.#files.set(path, known);
      return known;
    }
    const open: OpenFile = { opening: this.#disk.open(path, 'read'), file: null, users: 1, isForgotten: false };
    this.#files.set(path, open);
    // Whoever waits for it is told; the next one tries anew.
    open.opening.then((file) => { open.file = file; }, () => { if (this.#files.get(path) === open) this.#files.delete(path); });
    return open;
  }

  #shrink(): void {
    if (this.#files.size <= this.#countMax) return;
    for (const [path, open] of this.#files) {
      if (open.users > 0) continue;
      this.forget(path);
      if (this.#files.size <= this.#countMax) return;
    }
  }

  #close(open: OpenFile): void {
    const closed = open.opening.then((file) => file.close(), () => undefined);
    this.#closing = Promise.all([this.#closing, closed]).then(() => undefined);
    // Nothing was written through it: an error of its closing tells nothing to anybody.
    this.#closing = this.#closing.catch(() => undefined);
  }
}
