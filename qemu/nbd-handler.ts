/** What stands behind an export of the NBD server: the seam between the protocol and whoever stores or serves the bytes. */
import type { Fault } from '../journal/fault.ts';

/** One stretch of an export, as `base:allocation` knows it. */
export interface NbdAllocation {
  readonly lengthBytes: number;
  /** True: reads as zeroes and takes no space. */
  readonly isHole: boolean;
}

/**
 * All members are optional: without `write` the export is read-only, without `read` reads are answered with EINVAL. A promise that
 * rejects becomes an error of that one request: STORE_FULL and ENOSPC, EDQUOT, EFBIG become ENOSPC, EPERM, EACCES and EROFS become
 * EPERM, all else EIO. Offsets and lengths are on the export's smallest block and within it. Calls for one connection come in the order of
 * its requests, many under way at once; the client waits for an answer where it needs an order.
 */
export interface NbdHandler {
  /**
   * Takes over `buffer`, whose first `headroomBytes` are free, and whose rest is one run of at most `runBytesMax` bytes. Resolves
   * when there is room for more: the bytes are then no longer counted as under way. A request longer than a run comes as several.
   */
  write?(offset: number, buffer: Buffer, headroomBytes: number): Promise<void>;
  /** Runs of at most `zeroRunBytesMax`. Trims come here too: what was trimmed may read as anything, so zero is right. */
  zero?(offset: number, length: number): Promise<void>;
  /** Resolves when everything that was resolved before is durable. */
  flush?(): Promise<void>;
  /** Fills the whole of `into`. */
  read?(into: Buffer, offset: number): Promise<void>;
  /** What lies from `offset` on, at least one stretch, in order, without gaps; may end before `offset + length` or beyond it. More than `countMax` are not told to the client. */
  extents?(offset: number, length: number, countMax: number): Promise<readonly NbdAllocation[]>;
}

export interface NbdExport {
  readonly sizeBytes: number;
  readonly handler: NbdHandler;
  /** False: zeroing is as slow as writing here, and a client that asks for fast zeroes is told ENOTSUP. Default true. */
  readonly isZeroFast?: boolean;
  /** Smallest block: a power of two up to 64 KiB. Default: a sector. */
  readonly minimumBytes?: number;
  /** Whether all connections under this name see the same: a client may then spread its requests over several. Default: when it is read-only. */
  readonly isSameForAll?: boolean;
  /** The name under which the very same can be had again, where it is not the one that was asked for. */
  readonly canonicalName?: string;
  readonly description?: string;
}

/** One line of what a client is told when it asks which exports there are. */
export interface NbdListing { readonly name: string; readonly description?: string }

/** An export that is there for as long as somebody has it. */
export interface NbdLease {
  readonly export: NbdExport;
  /** Called once, at the latest when the connection has ended. */
  release(): void;
}

/** Exports that are made when a client asks for one. */
export interface NbdExportSource {
  /** In the order in which they are shown. Bounded by whoever makes it. */
  list(): Promise<readonly NbdListing[]>;
  /** A connection has one lease at a time. The client of a name that rejects is told that it is unknown, and a fault's message. */
  open(exportName: string): Promise<NbdLease>;
}

/** What a TCP client has to prove before it is told anything. */
export interface NbdTls {
  /** PEM: who we are, asked for each client: it may change. */
  shown(): { readonly key: string; readonly cert: string };
  /** The key that a user shares with us (TLS-PSK); null for one whom we do not know. */
  keyOf(user: string): Buffer | null;
  /** SHA-256 of certificates of clients, 64 lower-case hex digits each. */
  readonly clientFingerprints: ReadonlySet<string>;
}

export interface NbdServeOptions {
  /** Looked at whenever a client asks: exports may come and go; those who have entered keep what they have. */
  readonly exports: ReadonlyMap<string, NbdExport> | NbdExportSource;
  /** Payload under way over all connections, buffers as they are allocated. */
  readonly inFlightBytesMax?: number;
  /** The same for one connection: at least one request goes through, whatever its size. Default: as much as all of them. */
  readonly inFlightBytesMaxEach?: number;
  /** Largest read or write. */
  readonly requestBytesMax?: number;
  /** Free bytes in front of each run. Default: a record's header. */
  readonly headroomBytes?: number;
  /** A connection whose oldest request has waited this long is closed: QEMU's drains wait for it. */
  readonly stallLimitMs?: number;
  readonly handshakeLimitMs?: number;
  readonly connectionsMax?: number;
  /** Where runs come from, and where the handler's side may give them back. */
  readonly buffers?: { take(bytes: number): Buffer; takenBytes(bytes: number): number };
  /** False: payload is copied once more, without touching Node's own handles (nbd-accept.ts). Default true. */
  readonly isDirect?: boolean;
  /** What went wrong, for the log: NBD_PROTOCOL and NBD_CLOSED end a connection, NBD_IO a request. */
  readonly onFault: (fault: Fault) => void;
}

export interface NbdListenOptions extends NbdServeOptions {
  /** Of a unix socket. A socket that a dead process left there is replaced. */
  readonly path: string;
  /** Access mode of the socket. Default 0o600. */
  readonly mode?: number;
}

/** Over TCP nothing is served in the clear, and nothing to strangers. */
export interface NbdTlsListenOptions extends NbdServeOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tls: NbdTls;
}

export interface NbdServerFigures {
  readonly connections: number;
  /** In transmission, by export. */
  readonly clients: Readonly<Record<string, number>>;
  readonly inFlightBytes: number;
  readonly inFlightBytesPeak: number;
  readonly writtenBytes: number;
  readonly zeroedBytes: number;
  readonly readBytes: number;
  /** Connections ended by a fault, requests answered with an error. */
  readonly endedConnections: number;
  readonly failedRequests: number;
}

export interface NbdServer {
  /** Of TCP; null for a unix socket. */
  readonly address: { readonly host: string; readonly port: number } | null;
  figures(): NbdServerFigures;
  /** Ends all connections, at once, and stops listening. Calls of handlers that are under way are not waited for. */
  close(): Promise<void>;
}
