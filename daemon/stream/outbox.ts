/**
 * Records on their way out of one session: first come, first sent, as far as the target's credit and the socket's room
 * allow. Small records travel several to a message. It knows no WebSocket. Invariants: what has left never exceeds what the
 * target granted; what waits in the socket never exceeds `unwrittenBytesMax` by more than one message.
 */
import type { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';

/** Written to the socket and not yet taken by the kernel: enough that it never runs dry, no more, for it is memory. */
const unwrittenBytesMax = 4 * 1024 * 1024;
/** Records up to here are put together with their neighbours: a copy of this size costs less than a message. */
const smallBytesMax = 16 * 1024;
const batchBytesMax = 128 * 1024;

export interface OutboxPort {
  /** One binary message. `onWritten`: the bytes may be used again. */
  write(bytes: Buffer, onWritten: () => void): void;
}

interface Waiting {
  readonly record: RecordView;
  readonly onWritten: (() => void) | undefined;
  readonly resolve: () => void;
  readonly reject: (fault: Fault) => void;
}

export class Outbox {
  readonly #port: OutboxPort;
  #creditBytes: number;
  #unwrittenBytes = 0;
  #waiting: Waiting[] = [];
  #batch: { readonly bytes: Buffer; readonly onWritten: (() => void) | undefined }[] = [];
  #batchBytes = 0;
  #isFlushDue = false;
  #fault: Fault | null = null;
  #sentBytes = 0;

  constructor(port: OutboxPort, creditBytes: number) {
    this.#port = port;
    this.#creditBytes = creditBytes;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  get queue(): { readonly waitingRecords: number; readonly unwrittenBytes: number } {
    return { waitingRecords: this.#waiting.length, unwrittenBytes: this.#unwrittenBytes };
  }

  /** Rejects with the signal's reason when it comes first: the record then never leaves. */
  send(record: RecordView, onWritten?: () => void, signal?: AbortSignal): Promise<void> {
    if (this.#fault !== null) return Promise.reject(this.#fault);
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    if (this.#waiting.length === 0 && this.#hasRoom(record.bytes.length)) {
      this.#leave(record, onWritten);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = (): void => signal?.removeEventListener('abort', onAbort);
      const waiting: Waiting = {
        record, onWritten,
        resolve: () => { leave(); resolve(); },
        reject: (fault) => { leave(); reject(fault); },
      };
      const onAbort = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(signal!.reason as Error);
        // Not at once: others behind it may be about to be given up by the same signal.
        queueMicrotask(() => this.#pump());
      };
      this.#waiting.push(waiting);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  grant(bytes: number): void {
    this.#creditBytes += bytes;
    this.#pump();
  }

  /** What was put together leaves now: something must not overtake it. */
  flush(): void {
    const batch = this.#batch;
    if (batch.length === 0) return;
    const bytes = batch.length === 1 ? batch[0]!.bytes : Buffer.concat(batch.map((part) => part.bytes), this.#batchBytes);
    this.#batch = [];
    this.#batchBytes = 0;
    // Its bytes are counted as unwritten since they entered the batch.
    this.#port.write(bytes, () => {
      for (const { onWritten } of batch) onWritten?.();
      this.#written(bytes.length);
    });
  }

  /** The session is over: everything that waits is told so. */
  fail(fault: Fault): void {
    if (this.#fault !== null) return;
    this.#fault = fault;
    for (const { reject } of this.#waiting.splice(0)) reject(fault);
    this.#batch = [];
  }

  #hasRoom(bytes: number): boolean {
    return this.#creditBytes >= bytes && this.#unwrittenBytes < unwrittenBytesMax;
  }

  #leave({ bytes }: RecordView, onWritten?: () => void): void {
    this.#creditBytes -= bytes.length;
    this.#unwrittenBytes += bytes.length;
    this.#sentBytes += bytes.length;
    if (bytes.length <= smallBytesMax) {
      this.#batch.push({ bytes, onWritten });
      this.#batchBytes += bytes.length;
      if (this.#batchBytes >= batchBytesMax) this.flush();
      else this.#flushSoon();
      return;
    }
    this.flush();
    this.#port.write(bytes, () => {
      onWritten?.();
      this.#written(bytes.length);
    });
  }

  #flushSoon(): void {
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      this.flush();
    });
  }

  #written(bytes: number): void {
    this.#unwrittenBytes -= bytes;
    this.#pump();
  }

  #pump(): void {
    while (this.#waiting.length > 0 && this.#hasRoom(this.#waiting[0]!.record.bytes.length)) {
      const { record, onWritten, resolve } = this.#waiting.shift()!;
      this.#leave(record, onWritten);
      resolve();
    }
  }
}
