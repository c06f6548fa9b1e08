/**
 * A QMP proxy that can hold a command back: the moment in which the daemon waits for QEMU is then as long as a test needs it.
 * It goes on with the connection of one client at a time, as QEMU's own socket does.
 */
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { waitFor } from './wait.ts';

export class StallingProxy {
  readonly path: string;
  /** Commands of this name wait until `letGo`. */
  stalled: string | null = null;
  readonly #waiting: (() => void)[] = [];

  private constructor(path: string) {
    this.path = path;
  }

  static async start(t: { teardown(end: () => void): unknown }, path: string, qmpPath: string): Promise<StallingProxy> {
    const proxy = new StallingProxy(path);
    const sockets = new Set<Socket>();
    const server = createServer((client) => {
      const qemu = connect(qmpPath);
      for (const [one, other] of [[client, qemu], [qemu, client]] as const) {
        sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => { sockets.delete(one); other.destroy(); });
      }
      qemu.pipe(client);
      createInterface({ input: client }).on('line', (line) => {
        const pass = (): void => { qemu.write(`${line}\n`); };
        if ((JSON.parse(line) as { execute?: string }).execute === proxy.stalled) proxy.#waiting.push(pass);
        else pass();
      }).on('error', () => undefined);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    t.teardown(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return proxy;
  }

  async untilStalled(limitMs = 30_000): Promise<void> {
    await waitFor(() => this.#waiting.length > 0, { limitMs, what: `a ${this.stalled} to be held back` });
  }

  /** What waits goes on, and so does what comes. */
  letGo(): void {
    this.stalled = null;
    for (const pass of this.#waiting.splice(0)) pass();
  }

  /** What waits never arrives; what comes passes. */
  forget(): void {
    this.stalled = null;
    this.#waiting.length = 0;
  }
}
