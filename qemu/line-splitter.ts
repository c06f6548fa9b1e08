/**
 * Cuts a byte stream into lines that end with LF, with a limit on the length of a line. It keeps at most one unfinished
 * line, in one buffer that doubles as it grows, so that neither memory nor copying depends on how small the pieces are.
 */
const roomBytesMin = 4096;

export class LineSplitter {
  readonly #lineBytesMax: number;
  #room: Buffer = Buffer.alloc(0);
  #heldBytes = 0;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** Calls `onLine` for each line that `chunk` completes, until it returns false. False when a line, finished or not, is longer than the limit. */
  push(chunk: Buffer, onLine: (line: string) => boolean): boolean {
    let at = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, at);
      const piece = chunk.subarray(at, end < 0 ? chunk.length : end);
      if (this.#heldBytes + piece.length > this.#lineBytesMax) return false;
      if (end < 0) {
        this.#hold(piece);
        return true;
      }
      const line = this.#heldBytes === 0 ? piece.toString('utf8') : this.#release(piece);
      at = end + 1;
      if (!onLine(line)) return true;
    }
  }

  #hold(piece: Buffer): void {
    const neededBytes = this.#heldBytes + piece.length;
    if (neededBytes > this.#room.length) {
      const larger = Buffer.allocUnsafe(Math.max(roomBytesMin, this.#room.length * 2, neededBytes));
      this.#room.copy(larger, 0, 0, this.#heldBytes);
      this.#room = larger;
    }
    piece.copy(this.#room, this.#heldBytes);
    this.#heldBytes = neededBytes;
  }

  #release(piece: Buffer): string {
    this.#hold(piece);
    const line = this.#room.toString('utf8', 0, this.#heldBytes);
    this.#room = Buffer.alloc(0);
    this.#heldBytes = 0;
    return line;
  }
}
