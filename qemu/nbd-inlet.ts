/**
 * What a socket delivers, cut into the pieces that the NBD protocol is made of: a head of known length, a payload that goes
 * straight into its destination, or bytes to pass over. It knows neither socket nor protocol. Its owner always has exactly one
 * piece on order, and orders the next from within the callback of the last.
 * Invariants: memory is one scratch buffer, whatever the peer sends; bytes of a payload are copied at most once, and not at
 * all where the socket reads into what {@link NbdInlet.nextBuffer} offers; nothing is delivered while paused or after `stop`.
 */
import assert from 'node:assert/strict';

/** Socket reads that are for no large payload: on Linux a unix socket rarely delivers more at once. */
const scratchBytes = 64 * 1024;
/** Below this a payload arrives through the scratch buffer, together with what follows it: one system call fewer is worth a small copy. */
const directBytesMin = 16 * 1024;

export class NbdInlet {
  readonly #scratch = Buffer.allocUnsafeSlow(scratchBytes);
  /** For reading a head alone, when the payload behind it is worth reading straight into place. */
  readonly #scratchShort: Buffer;
  readonly #head: Buffer;
  #kind: 'head' | 'fill' | 'skip' = 'skip';
  #target: Buffer;
  #at = 0;
  /** Bytes that the piece on order still lacks. */
  #lackBytes = 0;
  #then: ((head: Buffer) => void) | null = null;
  /** Whether the last payloads were large. */
  #isBulk = false;
  #isRunning = false;
  #isPaused = false;
  #isStopped = false;
  /** Arrived, but not looked at before `pause`. */
  #held: Buffer | null = null;

  /** `headBytesMax`: the longest head that will be ordered. `headBytesUsual`: what precedes a payload. */
  constructor(headBytesMax: number, headBytesUsual: number) {
    this.#head = Buffer.allocUnsafeSlow(headBytesMax);
    this.#scratchShort = this.#scratch.subarray(0, headBytesUsual);
    this.#target = this.#head;
  }

  get isPaused(): boolean { return this.#isPaused; }
  /** Whether something has arrived that is not looked at. */
  get hasHeld(): boolean { return this.#held !== null; }
  /** True in the middle of a piece: the peer owes us bytes. */
  get isMidPiece(): boolean { return this.#kind !== 'head' || this.#at > 0; }

  /** Orders `bytes` bytes, given to `then` in one piece that is valid during the call only. */
  expect(bytes: number, then: (head: Buffer) => void): void {
    assert(bytes <= this.#head.length);
    this.#order('head', this.#head, 0, bytes, then);
  }

  /** Orders `bytes` bytes into `target` at `at`. */
  fill(target: Buffer, at: number, bytes: number, then: () => void): void {
    assert(at + bytes <= target.length);
    this.#isBulk = bytes >= directBytesMin;
    this.#order('fill', target, at, bytes, then);
  }

  /** Orders `bytes` bytes that nobody wants. */
  skip(bytes: number, then: () => void): void {
    this.#order('skip', this.#head, 0, bytes, then);
  }

  /** Nothing more is delivered until `resume`; what has arrived already is kept. */
  pause(): void { this.#isPaused = true; }

  /** Delivers what was kept. True when the socket may be read again. */
  resume(): boolean {
    this.#isPaused = false;
    if (this.#isRunning) return true;
    const held = this.#held;
    this.#held = null;
    this.#run(held ?? this.#scratch.subarray(0, 0));
    return !this.#isPaused;
  }

  stop(): void {
    this.#isStopped = true;
    this.#held = null;
    this.#then = null;
  }

  /** Bytes in a buffer of somebody else's. False when no more should come until `resume`. */
  push(chunk: Buffer): boolean {
    if (this.#isStopped) return false;
    if (this.#isPaused) {
      // A stream may still deliver what it had read before it was paused: at most its high-water mark.
      this.#held = this.#held === null ? chunk : Buffer.concat([this.#held, chunk]);
      return false;
    }
    this.#run(chunk);
    return !this.#isPaused;
  }

  /** Where the socket's next read should go. */
  nextBuffer(): Buffer {
    if (this.#isStopped || this.#isPaused) return this.#scratch;
    if (this.#kind === 'fill' && this.#lackBytes >= directBytesMin) return this.#target.subarray(this.#at, this.#at + this.#lackBytes);
    return this.#isBulk && this.#kind === 'head' && this.#at === 0 ? this.#scratchShort : this.#scratch;
  }

  /** The socket read `bytes` bytes into what `nextBuffer` gave. False as with `push`. */
  received(bytes: number, buffer: Uint8Array): boolean {
    if (this.#isStopped) return false;
    if (buffer.buffer === this.#scratch.buffer) return this.push(this.#scratch.subarray(0, bytes));
    assert(this.#kind === 'fill' && bytes <= this.#lackBytes);
    this.#at += bytes;
    this.#lackBytes -= bytes;
    this.#run(this.#scratch.subarray(0, 0));
    return !this.#isPaused;
  }

  #order(kind: 'head' | 'fill' | 'skip', target: Buffer, at: number, bytes: number, then: (head: Buffer) => void): void {
    assert(this.#then === null, 'one piece is on order at a time');
    this.#kind = kind;
    this.#target = target;
    this.#at = at;
    this.#lackBytes = bytes;
    this.#then = then;
  }

  #run(chunk: Buffer): void {
    assert(!this.#isRunning);
    this.#isRunning = true;
    let at = 0;
    try {
      while (!this.#isStopped) {
        if (this.#isPaused) {
          if (at < chunk.length) this.#held = chunk.subarray(at);
          return;
        }
        const presentBytes = Math.min(this.#lackBytes, chunk.length - at);
        if (this.#kind === 'head' && this.#at === 0 && presentBytes === this.#lackBytes) {
          at += presentBytes;
          this.#finish(chunk.subarray(at - presentBytes, at));
          continue;
        }
        if (this.#kind !== 'skip' && presentBytes > 0) chunk.copy(this.#target, this.#at, at, at + presentBytes);
        at += presentBytes;
        this.#at += presentBytes;
        this.#lackBytes -= presentBytes;
        if (this.#lackBytes > 0) return;
        this.#finish(this.#kind === 'head' ? this.#head.subarray(0, this.#at) : this.#head);
      }
    } finally {
      this.#isRunning = false;
    }
  }

  #finish(head: Buffer): void {
    const then = this.#then;
    this.#then = null;
    this.#lackBytes = 0;
    // Without an order there is nothing to finish: the owner orders before it lets bytes in.
    assert(then !== null, 'a piece is on order');
    then(head);
  }
}
