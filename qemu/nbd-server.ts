/**
 * The NBD server: for the peers on this host through a unix socket (QEMU's mirror job writes a first sync into it, guests and
 * tools read points), and for known clients elsewhere through TCP and TLS. It
 * listens, counts, and shares one budget of bytes among its connections; what a connection says and hears is nbd-session.ts.
 * Invariants: memory is bounded by the budget and by a fixed amount for each of a bounded number of connections, whatever the
 * clients do; no client's fault reaches another one; every request is answered, or its connection closed, within a limit.
 */
import { chmod, lstat, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { recordHeaderBytes, runBytesMax } from '../journal/limits.ts';
import { Fault } from '../journal/fault.ts';
import { NbdBudget } from './nbd-budget.ts';
import { BufferPool } from '../host/buffer-pool.ts';
import type { NbdListenOptions, NbdServeOptions, NbdServer, NbdTls, NbdTlsListenOptions } from './nbd-handler.ts';
import { nbdPayloadBytesDefault } from './nbd-protocol.ts';
import { NbdSession } from './nbd-session.ts';

/** QEMU's mirror has up to 16 MiB under way for each disk. */
const inFlightBytesMaxDefault = 64 * 1024 * 1024;
/** Well below the minutes after which a guest's own disk driver gives up, well above a slow fsync. */
const stallLimitMsDefault = 20_000;
const handshakeLimitMsDefault = 10_000;
const connectionsMaxDefault = 64;

/** Rejects with the system's error when the path cannot be listened on. */
export async function listenNbd(options: NbdListenOptions): Promise<NbdServer> {
  await removeDeadSocket(options.path);
  const mode = options.mode ?? 0o600;
  const server = await serve(options, null, options.path, (listener, then) => {
    // bind(2) gives the socket its mode from the umask, and `listen` on a path binds before it returns: nobody slips in before the chmod.
    const umask = process.umask(0o777 & ~mode);
    try {
      listener.listen(options.path, then);
    } finally {
      process.umask(umask);
    }
  });
  await chmod(options.path, mode);
  return server;
}

/** The same over TCP, for clients that prove who they are (nbd-tls.ts). */
export function listenNbdTls(options: NbdTlsListenOptions): Promise<NbdServer> {
  const { host, port } = options;
  return serve(options, options.tls, `${host}:${port}`, (listener, then) => listener.listen({ host, port }, then));
}

async function serve(options: NbdServeOptions, tls: NbdTls | null, place: string, listen: (server: Server, then: () => void) => void): Promise<NbdServer> {
  const headroomBytes = options.headroomBytes ?? recordHeaderBytes;
  const connectionsMax = options.connectionsMax ?? connectionsMaxDefault;
  const inFlightBytesMax = options.inFlightBytesMax ?? inFlightBytesMaxDefault;
  const budget = new NbdBudget(inFlightBytesMax);
  const counts = { writtenBytes: 0, zeroedBytes: 0, readBytes: 0, endedConnections: 0, failedRequests: 0 };
  const sessions = new Set<NbdSession>();
  const shared = {
    exports: options.exports, tls, budget, inFlightBytesMaxEach: options.inFlightBytesMaxEach ?? inFlightBytesMax, counts, headroomBytes, runBytesMax,
    // Without a pool of the caller's nothing is given back, and nothing kept.
    buffers: options.buffers ?? new BufferPool(headroomBytes, 0),
    requestBytesMax: options.requestBytesMax ?? nbdPayloadBytesDefault,
    stallLimitMs: options.stallLimitMs ?? stallLimitMsDefault,
    handshakeLimitMs: options.handshakeLimitMs ?? handshakeLimitMsDefault,
    isDirect: options.isDirect ?? true,
    onFault: options.onFault,
  };

  const accept = (socket: Socket): void => {
    if (sessions.size >= connectionsMax) {
      socket.destroy();
      counts.endedConnections += 1;
      options.onFault(new Fault('NBD_CLOSED', `${place} has ${connectionsMax} clients already; another one was turned away`, { place, connectionsMax }));
      return;
    }
    const session: NbdSession = new NbdSession(socket, shared, () => sessions.delete(session));
    sessions.add(session);
  };

  const server = createServer({ pauseOnConnect: true }, accept);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    listen(server, () => {
      server.off('error', reject);
      resolve();
    });
  });
  // Accepting can fail for want of descriptors; the listener itself goes on.
  server.on('error', (error) => options.onFault(new Fault('NBD_CLOSED', `${place}: a client could not be accepted: ${error.message}`, { place }, error)));
  const address = server.address();

  return {
    address: typeof address === 'object' && address !== null ? { host: address.address, port: address.port } : null,
    figures() {
      const clients: Record<string, number> = {};
      for (const { exportName } of sessions) if (exportName !== null) clients[exportName] = (clients[exportName] ?? 0) + 1;
      return { connections: sessions.size, clients, inFlightBytes: budget.takenBytes, inFlightBytesPeak: budget.peakBytes, ...counts };
    },
    close() {
      return new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const session of [...sessions]) session.end(null, true);
      });
    },
  };
}

/** A process that was killed leaves its socket behind. The folder is ours, so nobody else's can stand there. */
async function removeDeadSocket(path: string): Promise<void> {
  try {
    if ((await lstat(path)).isSocket()) await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
