/**
 * The first sync: runs straight into the replica, several at once, overlapping ones in the order in which they came. Nothing
 * here is a point, and nothing is durable before `finish`. A sync that failed is remembered for good: the system may show pages
 * that the disk does not hold, so that from then on every block counts as different until all of it was sent again.
 */
import { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import { runBytes } from './record-payload.ts';
import type { Replica } from './replica.ts';

interface Write { readonly disk: number; readonly start: number; readonly end: number; readonly done: Promise<void> }

export class SeedIntake {
  readonly #replica: Replica;
  readonly #isTrusted: boolean;
  readonly deltaId: string;
  #writes: Write[] = [];
  /** A failed write or sync: this pass cannot end well any more. */
  #failure: Error | null = null;

  /** `isTrusted`: no sync of the replica has failed, so that holes are what they seem. */
  constructor(replica: Replica, deltaId: string, isTrusted: boolean) {
    this.#replica = replica;
    this.#isTrusted = isTrusted;
    this.deltaId = deltaId;
  }

  /** The record was admitted (record-admission-plan.ts). */
  take(record: RecordView): Promise<void> {
    const { header } = record;
    const { disk, offset: start } = header;
    const end = start + header.length;
    const before = this.#writes.filter((write) => write.disk === disk && write.start < end && write.end > start).map(({ done }) => done);
    const outcome = this.#write(record, before);
    const write: Write = { disk, start, end, done: outcome.then(() => undefined, () => undefined) };
    this.#writes.push(write);
    void write.done.then(() => { this.#writes = this.#writes.filter((other) => other !== write); });
    return outcome;
  }

  /** Resolves when what was taken so far has been written, well or not. */
  async settle(): Promise<void> {
    await Promise.all(this.#writes.map(({ done }) => done));
  }

  /** All of it is durable when it resolves. */
  async finish(disks: readonly number[]): Promise<void> {
    await this.settle();
    if (this.#failure !== null) throw this.#failure;
    try {
      await this.#replica.sync(disks);
    } catch (error) {
      this.#failure = asError(error);
      throw error;
    }
  }

  async #write({ header, bytes }: RecordView, before: readonly Promise<void>[]): Promise<void> {
    if (before.length > 0) await Promise.all(before);
    try {
      if (header.kind === 'zero') {
        await this.#replica.zero(header.disk, header.offset, header.offset + header.length, this.#isTrusted);
        return;
      }
      const file = await this.#replica.file(header.disk);
      const run = await runBytes(header, bytes);
      if (run === null) throw new Fault('RECORD_CORRUPT', 'the compressed data cannot be unpacked', { disk: header.disk, offset: header.offset });
      await file.write(run, header.offset);
    } catch (error) {
      this.#failure ??= asError(error);
      throw error;
    }
  }
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
