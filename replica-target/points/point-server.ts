/**
 * Where the exports of points can be had: a unix socket of the target's user, and, when it was asked for, a TCP port for clients
 * that prove who they are. Two servers, so that no client from elsewhere can take the room of a guest that runs here from a point.
 * What is served is nbd-exports.ts.
 */
import { readFileSync, statSync } from 'node:fs';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { NbdServer, NbdTls } from '../../qemu/nbd-handler.ts';
import { nbdPayloadBytesDefault } from '../../qemu/nbd-protocol.ts';
import { listenNbd, listenNbdTls } from '../../qemu/nbd-server.ts';
import { NbdExports, type ExportedGroups } from './nbd-exports.ts';

export interface PointServerOptions {
  /** Absolute. */
  readonly socketPath: string;
  /** Null: no TCP. */
  readonly listen: {
    readonly host: string;
    readonly port: number;
    /** Absolute; lines `user:hexkey`, as GnuTLS's psktool writes them. Read anew for each client. Null: no keys. */
    readonly keysPath: string | null;
    /** SHA-256 of certificates of clients, 64 lower-case hex digits each. */
    readonly clientFingerprints: readonly string[];
  } | null;
}

export interface PointServerDeps {
  readonly groups: ExportedGroups;
  readonly clock: Clock;
  readonly log: Logger;
  /** The target's own certificate as it is now, PEM. */
  readonly shown: NbdTls['shown'];
}

export interface PointServerReport {
  readonly socketPath: string;
  /** host:port of TCP. */
  readonly address: string | null;
  /** Connections that read, by export. */
  readonly clients: Readonly<Record<string, number>>;
  /** Views that are open. */
  readonly viewCount: number;
  readonly readBytes: number;
  readonly failedRequests: number;
}

export interface PointServer {
  report(): PointServerReport;
  close(): Promise<void>;
}

/** One request of the largest size, and its header: nobody holds more, whatever they ask for. */
const clientBytesMax = nbdPayloadBytesDefault + 4096;
/** Over all clients of one of the two servers: four that read as much as they may, or some thousand that read as QEMU does. */
const inFlightBytesMax = 4 * clientBytesMax;
/** Many guests may run here from points, with a connection for each disk. */
const connectionsMax = 512;
/** Beyond this it is no file of keys. */
const keysBytesMax = 256 * 1024;

/** Rejects with the system's error when it cannot listen; fault CONFIG_INVALID for keys that are not private. */
export async function startPointServer(options: PointServerOptions, { groups, clock, log, shown }: PointServerDeps): Promise<PointServer> {
  const onFault = (fault: Fault): void => {
    // Clients come and go as they like; what one was answered with EIO for is wrong here.
    const level = fault.code === 'NBD_IO' ? 'error' : fault.code === 'NBD_TLS' ? 'warn' : 'info';
    log[level]({ code: fault.code, facts: fault.facts, err: fault.cause instanceof Error ? fault.cause : undefined }, fault.message);
  };
  const exports = new NbdExports(groups, clock, onFault);
  const bounds = { exports, inFlightBytesMax, inFlightBytesMaxEach: clientBytesMax, connectionsMax, onFault };
  const near = await listenNbd({ ...bounds, path: options.socketPath });
  let far: NbdServer | null = null;
  try {
    far = options.listen === null ? null : await listenNbdTls({ ...bounds, host: options.listen.host, port: options.listen.port, tls: tlsOf(options.listen, shown, onFault) });
  } catch (error) {
    await near.close();
    throw error;
  }
  return {
    report() {
      const figures = [near.figures(), ...(far === null ? [] : [far.figures()])];
      const clients: Record<string, number> = {};
      for (const { clients: some } of figures) for (const [name, count] of Object.entries(some)) clients[name] = (clients[name] ?? 0) + count;
      return {
        socketPath: options.socketPath,
        address: far?.address == null ? null : hostPort(far.address),
        clients, viewCount: exports.viewCount,
        readBytes: figures.reduce((sum, { readBytes }) => sum + readBytes, 0),
        failedRequests: figures.reduce((sum, { failedRequests }) => sum + failedRequests, 0),
      };
    },
    async close() {
      await Promise.all([near.close(), far?.close()]);
    },
  };
}

function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function tlsOf({ keysPath, clientFingerprints }: NonNullable<PointServerOptions['listen']>, shown: NbdTls['shown'], onFault: (fault: Fault) => void): NbdTls {
  // At the start a file that cannot be used is an error; later it only turns clients away.
  if (keysPath !== null) readKeys(keysPath);
  return {
    shown, clientFingerprints: new Set(clientFingerprints),
    keyOf(user) {
      if (keysPath === null) return null;
      try {
        return readKeys(keysPath).get(user) ?? null;
      } catch (error) {
        if (!isFault(error)) throw error;
        onFault(error);
        return null;
      }
    },
  };
}

/** TLS asks for the key in the middle of a call, so it is read in one: a few lines. Fault CONFIG_INVALID. */
function readKeys(path: string): ReadonlyMap<string, Buffer> {
  let text: string;
  try {
    const { mode, size } = statSync(path);
    if ((mode & 0o077) !== 0) throw new Fault('CONFIG_INVALID', `${path} is readable by others (mode ${(mode & 0o777).toString(8)}); it holds keys and must be 600`, { path });
    if (size > keysBytesMax) throw new Fault('CONFIG_INVALID', `${path} is no file of keys: it has ${size} bytes`, { path });
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw isFault(error) ? error : new Fault('CONFIG_INVALID', `the keys of NBD clients cannot be read: ${(error as Error).message}`, { path }, error);
  }
  const keys = new Map<string, Buffer>();
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return;
    const match = /^([^:]{1,128}):((?:[0-9a-fA-F]{2}){16,64})\s*$/.exec(line);
    if (match === null) throw new Fault('CONFIG_INVALID', `${path}:${index + 1}: expected user:hexkey with 16 to 64 bytes of key`, { path, line: index + 1 });
    keys.set(match[1]!, Buffer.from(match[2]!, 'hex'));
  });
  return keys;
}
