/**
 * A network between two processes: messages of the real protocol in the order in which they were said, each after a time of its own. It can be cut: what was under way is lost,
 * and neither side hears of that but by the other's silence. What stands for a WebSocket here has no frames, no TLS, and no other side than the one it was made with.
 */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Life, World } from './world.ts';

export class Network {
  readonly #world: World;
  /** Each cut has its number: a connection of before is lost for good. */
  #cut = 0;
  isUp = true;

  constructor(world: World) {
    this.#world = world;
  }

  get era(): number { return this.#cut; }

  set(isUp: boolean): void {
    if (this.isUp && !isUp) this.#cut += 1;
    this.isUp = isUp;
  }

  /** Two ends of one connection. */
  connect(a: Life, b: Life): readonly [End, End] {
    const era = this.#cut;
    const isWhole = (): boolean => this.isUp && this.#cut === era;
    const ends = [new End(this.#world, a, isWhole), new End(this.#world, b, isWhole)] as const;
    ends[0].peer = ends[1];
    ends[1].peer = ends[0];
    return ends;
  }
}

const pingBytes = 6;

/** As much of a WebSocket, and of its socket, as both roles use. */
export class End extends EventEmitter {
  readonly OPEN = 1;
  readyState = 1;
  readonly bufferedAmount = 0;
  bytesRead = 0;
  peer: End | null = null;
  readonly #world: World;
  readonly #life: Life;
  readonly #isWhole: () => boolean;
  /** Nothing overtakes what was said before. */
  #lastAtMs = 0;

  constructor(world: World, life: Life, isWhole: () => boolean) {
    super();
    this.#world = world;
    this.#life = life;
    this.#isWhole = isWhole;
    this.setMaxListeners(0);
    // Its kernel says that it is gone, if the network carries it.
    life.atEnd(() => this.terminate());
  }

  get ws(): WebSocket { return this as unknown as WebSocket; }
  get socket(): Socket { return this as unknown as Socket; }

  send(data: Buffer | string, onWritten?: () => void): void {
    if (this.readyState !== this.OPEN) return;
    const bytes = Buffer.from(data); // as it is now: the sender's memory is used again
    const isBinary = typeof data !== 'string';
    this.#deliver(() => this.peer!.hear(bytes, isBinary));
    if (onWritten !== undefined) queueMicrotask(() => { if (!this.#life.isOver) onWritten(); });
  }

  ping(): void {
    if (this.readyState !== this.OPEN) return;
    this.#deliver(() => {
      this.peer!.bytesRead += pingBytes;
      this.peer!.#deliver(() => { this.bytesRead += pingBytes; });
    });
  }

  close(): void {
    this.terminate();
  }

  terminate(): void {
    if (this.readyState !== this.OPEN) return;
    this.readyState = 3;
    this.#deliver(() => this.peer!.lose());
    this.#world.after(0, () => this.#over());
  }

  hear(bytes: Buffer, isBinary: boolean): void {
    if (this.readyState !== this.OPEN || this.#life.isOver) return;
    this.bytesRead += bytes.length;
    this.emit('message', bytes, isBinary);
  }

  lose(): void {
    if (this.readyState !== this.OPEN) return;
    this.readyState = 3;
    this.#over();
  }

  #over(): void {
    if (!this.#life.isOver) this.emit('close');
  }

  #deliver(act: () => void): void {
    const atMs = Math.max(this.#lastAtMs, this.#world.nowMs + 1 + this.#world.dice.integer(20));
    this.#lastAtMs = atMs;
    this.#world.after(atMs - this.#world.nowMs, () => { if (this.#isWhole()) act(); });
  }
}
