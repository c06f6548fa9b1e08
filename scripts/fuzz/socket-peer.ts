/** A unix socket in a folder of its own, served by whatever a decoder's input makes of the peer; for clients that only know sockets. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class SocketPeer {
  #folder: string | null = null;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  /** What the next connection is served with. */
  serve: (socket: Socket) => void = (socket) => { socket.destroy(); };

  /** The path, listened on. */
  async listen(): Promise<string> {
    if (this.#folder !== null) return join(this.#folder, 's');
    this.#folder = mkdtempSync(join(tmpdir(), 'afterimage-fuzz-peer-'));
    const path = join(this.#folder, 's');
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      this.serve(socket);
    });
    this.#server = server;
    await new Promise<void>((resolve) => { server.listen(path, resolve); });
    return path;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const server = this.#server;
    this.#server = null;
    if (server !== null) await new Promise<void>((resolve) => { server.close(() => resolve()); });
    if (this.#folder !== null) rmSync(this.#folder, { recursive: true, force: true });
    this.#folder = null;
  }
}
