/**
 * The records of one delta or one first sync on their way out, in order: gives each its sequence in the tick in which it is
 * handed to the session, so that the order of the calls is the order on the wire. Waits for nothing but the session.
 */
import type { RecordView } from '../../journal/record.ts';
import type { EncodedRun, Encoder } from './encoder.ts';
import type { TargetSession } from './session.ts';

export class RecordLane {
  readonly #session: TargetSession;
  readonly #encoder: Encoder;
  readonly #signal: AbortSignal | undefined;
  #next: number;
  #sentBytes = 0;

  readonly #isPass: boolean;

  /** After the signal nothing is sent any more. `isPass`: of a first sync or resync. */
  constructor(session: TargetSession, encoder: Encoder, firstSequence: number, signal?: AbortSignal, isPass = false) {
    this.#isPass = isPass;
    this.#session = session;
    this.#signal = signal;
    this.#encoder = encoder;
    this.#next = firstSequence;
  }

  /** Sequence that the next record gets. */
  get nextSequence(): number {
    return this.#next;
  }

  /** Bytes of all records handed over. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  send(run: EncodedRun): Promise<void> {
    return this.sendRecord(run.finish(this.#next), run.release);
  }

  /** For the records that frame a delta: made with `nextSequence` in the same tick. */
  async sendRecord(record: RecordView, onWritten?: () => void): Promise<void> {
    this.#next += 1;
    this.#sentBytes += record.bytes.length;
    const waited = this.#encoder.wait();
    try {
      await this.#session.send(record, onWritten, this.#signal, this.#isPass);
    } finally {
      waited();
    }
  }
}
