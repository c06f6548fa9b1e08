/**
 * The replies of one session of the NBD server on their way to the client. Small ones that become ready together leave in one
 * write. It knows when the client stops taking them, and leaves it to the session to read no more requests then.
 * Invariant: bytes leave in the order of the calls.
 */
import type { Socket } from 'node:net';
import {
  encodeChunkHeader, encodeSimpleReply, nbdChunk, nbdChunkFlagDone, nbdChunkHeaderBytes, nbdSimpleReplyBytes, type NbdRequest,
} from './nbd-protocol.ts';

const arenaBytes = 4096;

export class NbdReplies {
  readonly #socket: Socket;
  #arena = Buffer.allocUnsafeSlow(arenaBytes);
  #from = 0;
  #to = 0;
  #blockedSinceMs: number | null = null;
  #isStopped = false;

  constructor(socket: Socket, onDrain: () => void) {
    this.#socket = socket;
    socket.on('drain', () => {
      this.#blockedSinceMs = null;
      onDrain();
    });
  }

  /** Since when the client has taken nothing, on the monotonic clock; null while it does. */
  get blockedSinceMs(): number | null { return this.#blockedSinceMs; }

  stop(): void { this.#isStopped = true; }

  simple(request: NbdRequest, error: number): void {
    if (this.#to + nbdSimpleReplyBytes > arenaBytes) {
      this.flush();
      this.#arena = Buffer.allocUnsafeSlow(arenaBytes);
      this.#from = 0;
      this.#to = 0;
    }
    if (this.#to === this.#from) process.nextTick(() => this.flush());
    encodeSimpleReply(this.#arena, this.#to, error, request);
    this.#to += nbdSimpleReplyBytes;
  }

  /** "A server MUST NOT use a simple reply for NBD_CMD_READ" once structured replies are agreed. */
  errorChunk(request: NbdRequest, error: number): void {
    const chunk = Buffer.allocUnsafe(nbdChunkHeaderBytes + 6);
    encodeChunkHeader(chunk, 0, nbdChunkFlagDone, nbdChunk.error, request, 6);
    chunk.writeUInt32BE(error, nbdChunkHeaderBytes);
    chunk.writeUInt16BE(0, nbdChunkHeaderBytes + 4);
    this.content(chunk);
  }

  /** A whole reply or chunk that the caller has made; `onGone` when its bytes have left, or never will. */
  content(bytes: Buffer, onGone?: () => void): void {
    this.flush();
    this.#write(bytes, onGone);
  }

  flush(): void {
    if (this.#isStopped || this.#to === this.#from) return;
    const bytes = this.#arena.subarray(this.#from, this.#to);
    this.#from = this.#to;
    this.#write(bytes);
  }

  #write(bytes: Buffer, onGone?: () => void): void {
    const isTaken = onGone === undefined ? this.#socket.write(bytes) : this.#socket.write(bytes, onGone);
    if (!isTaken) this.#blockedSinceMs ??= performance.now();
  }
}
