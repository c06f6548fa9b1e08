/**
 * Sockets that have not proved anything yet. Each has a time limit over everything up to its proof (TLS, upgrade, hello,
 * auth), and there is a bounded number of them: when one too many comes, the oldest goes, so that idle strangers cannot keep
 * a real source out. It knows no protocol.
 */
import type { Socket } from 'node:net';

export class Admission {
  readonly #pendingMax: number;
  readonly #limitMs: number;
  readonly #onRefused: (peer: string, why: string) => void;
  readonly #pending = new Map<string, { readonly socket: Socket; readonly timer: NodeJS.Timeout }>();

  constructor(pendingMax: number, limitMs: number, onRefused: (peer: string, why: string) => void) {
    this.#pendingMax = pendingMax;
    this.#limitMs = limitMs;
    this.#onRefused = onRefused;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  enter(socket: Socket): void {
    const key = keyOf(socket);
    const timer = setTimeout(() => this.#refuse(key, `no proof within ${this.#limitMs} ms`), this.#limitMs);
    this.#pending.set(key, { socket, timer });
    socket.once('close', () => this.#leave(key));
    if (this.#pending.size > this.#pendingMax) this.#refuse(this.#pending.keys().next().value!, `more than ${this.#pendingMax} connections without a proof`);
  }

  /** The peer has proved itself. `socket` may be the TLS socket over the one that entered. */
  admit(socket: Socket): void {
    this.#leave(keyOf(socket));
  }

  close(): void {
    for (const [key, { socket }] of this.#pending) {
      this.#leave(key);
      socket.destroy();
    }
  }

  #leave(key: string): void {
    clearTimeout(this.#pending.get(key)?.timer);
    this.#pending.delete(key);
  }

  #refuse(key: string, why: string): void {
    const socket = this.#pending.get(key)?.socket;
    if (socket === undefined) return;
    this.#leave(key);
    this.#onRefused(peerOf(socket), why);
    socket.destroy();
  }
}

/** TLS and TCP sockets of one connection have the same peer, and no two connections do. */
function keyOf(socket: Socket): string {
  return `${socket.remoteAddress ?? ''} ${socket.remotePort ?? ''}`;
}

/** The peer's address as people write it; without its port, so that one peer is one peer. */
export function peerOf(socket: Socket): string {
  return socket.remoteAddress ?? 'unknown';
}
