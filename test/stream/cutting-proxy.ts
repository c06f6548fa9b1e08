/** Servers that end with the test, and a relay that cuts connections at arbitrary bytes. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { nodeClock } from '../../host/node/clock.ts';
import type { Teardown } from '../ingest/loopback.ts';

export async function listen(t: Teardown, server: ReturnType<typeof createServer>): Promise<void> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
}

/** Passes on a random number of bytes in each direction, then resets both ends; every third connection is left whole. */
export async function cuttingProxy(t: Teardown, to: number, fraction: () => number): Promise<{ port: number; cuts: () => number }> {
  let cuts = 0;
  let connections = 0;
  const server = createServer((near) => {
    const far = connect(to, '127.0.0.1');
    connections += 1;
    // Small budgets fall into the handshake, large ones into the records.
    let budget = connections % 3 === 0 ? Infinity : Math.floor(fraction() ** 3 * 6_000_000);
    const cut = (): void => {
      if (near.destroyed || far.destroyed) return;
      cuts += 1;
      near.resetAndDestroy();
      far.resetAndDestroy();
    };
    if (budget === Infinity) nodeClock.delay(200 + fraction() * 300).then(cut, () => undefined);
    for (const [one, other] of [[near, far], [far, near]] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
      one.on('data', (chunk) => {
        other.write(chunk.subarray(0, budget));
        budget -= chunk.length;
        if (budget <= 0) cut();
      });
    }
  });
  await listen(t, server);
  return { port: (server.address() as AddressInfo).port, cuts: () => cuts };
}
