/**
 * Records on their way out of one session, as far as the target's credit, the socket's room and the source's rate limits allow:
 * those of a group in the order in which they came; of several groups the live stream before first syncs and resyncs, which get
 * a part all the same, or they would never end. Small records travel several to a message. It knows no WebSocket. Invariants: what has left never exceeds what the
 * target granted; what waits in the socket never exceeds `unwrittenBytesMax` by more than one message.
 */
import type { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import type { OutboxGate } from './throttle.ts';

/** Written to the socket and not yet taken by the kernel: enough that it never runs dry, no more, for it is memory. */
const unwrittenBytesMax = 4 * 1024 * 1024;
/** Records up to here are put together with their neighbours: a copy of this size costs less than a message. */
const smallBytesMax = 16 * 1024;
const batchBytesMax = 128 * 1024;
/** While both wait, a full pass gets a byte for so many of the live stream: enough that QEMU's mirror does not give up. */
const livePerPassByte = 7;

export interface OutboxPort {
  /** One binary message. `onWritten`: the bytes may be used again. */
  write(bytes: Buffer, onWritten: () => void): void;
}

interface Waiting {
  readonly isPass: boolean;
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
  readonly #gate: OutboxGate | null;
  /** Bytes of the live stream that left while a full pass waited. */
  #owedBytes = 0;
  #isAsleep = false;
  readonly #over = new AbortController();

  constructor(port: OutboxPort, creditBytes: number, gate: OutboxGate | null = null) {
    this.#gate = gate;
    this.#port = port;
    this.#creditBytes = creditBytes;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  get queue(): { readonly waitingRecords: number; readonly unwrittenBytes: number } {
    return { waitingRecords: this.#waiting.length, unwrittenBytes: this.#unwrittenBytes };
  }

  /** `isPass`: of a first sync or a resync. Rejects with the signal's reason when it comes first: the record then never leaves. */
  send(record: RecordView, onWritten?: () => void, signal?: AbortSignal, isPass = false): Promise<void> {
    if (this.#fault !== null) return Promise.reject(this.#fault);
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    if (this.#waiting.length === 0 && this.#hasRoom(record.bytes.length) && this.#gateMs(record) === 0) {
      this.#leave(record, onWritten);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = (): void => signal?.removeEventListener('abort', onAbort);
      const waiting: Waiting = {
        record, onWritten, isPass,
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
      // What came before may wait for a limit that is not this record's.
      if (this.#gate !== null || !isPass) this.#pump();
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
    this.#over.abort(fault);
  }

  #gateMs({ header }: RecordView): number {
    return this.#gate?.waitMs(header.groupId) ?? 0;
  }

  #hasRoom(bytes: number): boolean {
    return this.#creditBytes >= bytes && this.#unwrittenBytes < unwrittenBytesMax;
  }

  #leave({ bytes, header }: RecordView, onWritten?: () => void): void {
    this.#gate?.took(header.groupId, bytes.length);
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
    for (let next = this.#choose(); next !== null; next = this.#choose()) {
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.#leave(next.record, next.onWritten);
      next.resolve();
    }
  }

  /** Null: nothing may leave now. */
  #choose(): Waiting | null {
    let live: Waiting | null = null;
    let pass: Waiting | null = null;
    let heldMs = Infinity;
    const seen = new Set<string>();
    for (const waiting of this.#waiting) {
      const groupId = waiting.record.header.groupId;
      // Within a group the order is that of the calls, whatever is sent.
      if (seen.has(groupId)) continue;
      seen.add(groupId);
      if ((waiting.isPass ? pass : live) !== null) continue;
      const waitMs = this.#gate === null ? 0 : this.#gate.waitMs(groupId);
      if (waitMs > 0) heldMs = Math.min(heldMs, waitMs);
      else if (waiting.isPass) pass = waiting;
      else live = waiting;
      if (live !== null && pass !== null) break;
    }
    if (heldMs < Infinity) this.#wakeIn(heldMs);
    const isPassDue = pass !== null && (live === null || this.#owedBytes >= livePerPassByte * pass.record.bytes.length);
    const chosen = isPassDue ? pass : live;
    if (chosen === null || !this.#hasRoom(chosen.record.bytes.length)) return null;
    if (isPassDue) this.#owedBytes = 0;
    else if (pass !== null) this.#owedBytes += chosen.record.bytes.length;
    return chosen;
  }

  #wakeIn(ms: number): void {
    if (this.#isAsleep || this.#gate === null) return;
    this.#isAsleep = true;
    this.#gate.delay(ms, this.#over.signal).then(() => {
      this.#isAsleep = false;
      this.#pump();
    }, (error: unknown) => { if (!this.#over.signal.aborted) throw error; });
  }
}
