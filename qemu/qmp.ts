/** What the rest of the product sees of a QMP connection. The real one is qemu/qmp-client.ts. */
import type { Fault } from '../journal/fault.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly atMs: number;
}

export interface QmpConnection {
  /** QEMU's version from the greeting. */
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  /** Rejects with Fault QMP_COMMAND (facts: command, class, description), QMP_TIMEOUT (the connection is then closed) or QMP_CLOSED. */
  execute<T = unknown>(command: string, args?: Readonly<Record<string, unknown>>, options?: { readonly timeoutMs?: number }): Promise<T>;
  /** Events in the order in which they arrived relative to replies: an event read before a reply is delivered before it. Returns the way to stop listening. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
  /** Resolves once, with why, when the connection is over. */
  readonly closed: Promise<Fault>;
  close(): void;
}
