/** A unix socket in a folder of its own, served by whatever a decoder's input makes of the peer; for clients that only know sockets. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class SocketPeer {
  readonly #folder = mkdtempSync(join(tmpdir(), 'afterimage-fuzz-peer-'));
  readonly path = join(this.#folder, 's');
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  /** What the next connection is served with. */
  serve: (socket: Socket) => void = (socket) => { socket.destroy(); };

  /** The path, listened on. */
  async listen(): Promise<string> {
    if (this.#server !== null) return this.path;
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      this.serve(socket);
    });
    this.#server = server;
    await new Promise<void>((resolve) => { server.listen(this.path, resolve); });
    return this.path;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const server = this.#server;
    this.#server = null;
    if (server !== null) await new Promise<void>((resolve) => { server.close(() => resolve()); });
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
