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
 * EPERM, all else EIO. Offsets and lengths are on 512 bytes and within the export. Calls for one connection come in the order of
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
  /** What lies from `offset` on, at least one stretch, in order, without gaps; may end before `offset + length` or beyond it. */
  extents?(offset: number, length: number): Promise<readonly NbdAllocation[]>;
}

export interface NbdExport {
  readonly sizeBytes: number;
  readonly handler: NbdHandler;
  /** False: zeroing is as slow as writing here, and a client that asks for fast zeroes is told ENOTSUP. Default true. */
  readonly isZeroFast?: boolean;
}

export interface NbdListenOptions {
  /** Of a unix socket. A socket that a dead process left there is replaced. */
  readonly path: string;
  /** Looked at whenever a client asks: exports may come and go; those who have entered keep what they have. */
  readonly exports: ReadonlyMap<string, NbdExport>;
  /** Payload under way over all connections, buffers as they are allocated. */
  readonly inFlightBytesMax?: number;
  /** Largest read or write. */
  readonly requestBytesMax?: number;
  /** Free bytes in front of each run. Default: a record's header. */
  readonly headroomBytes?: number;
  /** A connection whose oldest request has waited this long is closed: QEMU's drains wait for it. */
  readonly stallLimitMs?: number;
  readonly handshakeLimitMs?: number;
  readonly connectionsMax?: number;
  /** Access mode of the socket. Default 0o600. */
  readonly mode?: number;
  /** Where runs come from, and where the handler's side may give them back. */
  readonly buffers?: { take(bytes: number): Buffer; takenBytes(bytes: number): number };
  /** False: payload is copied once more, without touching Node's own handles (nbd-accept.ts). Default true. */
  readonly isDirect?: boolean;
  /** What went wrong, for the log: NBD_PROTOCOL and NBD_CLOSED end a connection, NBD_IO a request. */
  readonly onFault: (fault: Fault) => void;
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
  figures(): NbdServerFigures;
  /** Ends all connections, at once, and stops listening. Calls of handlers that are under way are not waited for. */
  close(): Promise<void>;
}
