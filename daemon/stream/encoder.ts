/**
 * Makes records of runs, once: the payload is read straight behind the room for the header, tested for zeroes, compressed
 * when that pays (compression-plan.ts), checksummed. One encoder per link, as the link is what decides about compression.
 * It knows no socket; who sends tells it how long the link made it wait.
 */
import { compress } from 'snappy';
import type { Clock } from '../../host/clock.ts';
import { recordHeaderBytes, runBytesMax } from '../../journal/limits.ts';
import { makeRecord, sealRecordBytes, type RecordHeader, type RecordView } from '../../journal/record.ts';
import { initialCompression, isCompressing, planCompression, sampleMs } from './compression-plan.ts';

/** Compressed payloads must be at most this share of the run, or the run travels plain. */
const payingShare = 15 / 16;
const zeroes = Buffer.alloc(runBytesMax);

/** Where a run lies and in which delta; what only the sender knows (the sequence) comes when the record is finished. */
export type RunPlace = Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term' | 'disk' | 'offset'>;

/** A run ready to become a record as soon as its sequence is known. */
export interface EncodedRun {
  readonly rawBytes: number;
  finish(sequence: number): RecordView;
}

export class Encoder {
  readonly #clock: Clock;
  #compression = initialCompression;
  #active = 0;
  #accountedMs = 0;
  #accountedCpu = process.cpuUsage();
  #activeMs = 0;
  #cpuMs = 0;
  #waitedMs = 0;
  #rawBytes = 0;
  #payloadBytes = 0;

  constructor(options: { readonly clock: Clock }) {
    this.#clock = options.clock;
  }

  /** For the report of the link. */
  compression(): { readonly isOn: boolean; readonly why: string; readonly ratio: number } {
    return { isOn: isCompressing(this.#compression), why: this.#compression.why, ratio: this.#compression.ratio };
  }

  /** A buffer for a data run, with room for the header in front. */
  static buffer(length: number): Buffer {
    return Buffer.allocUnsafeSlow(recordHeaderBytes + length);
  }

  /** A data run whose bytes stand in `buffer` behind the room for the header. The buffer belongs to the record from here on. */
  async data(place: RunPlace, buffer: Buffer): Promise<EncodedRun> {
    const payload = buffer.subarray(recordHeaderBytes);
    const length = payload.length;
    if (isZero(payload)) return this.zero(place, length);
    if (isCompressing(this.#compression)) {
      const packed = await compress(payload);
      if (packed.length <= length * payingShare) {
        const bytes = Encoder.buffer(packed.length);
        packed.copy(bytes, recordHeaderBytes);
        return this.#ready(place, bytes, length, 'snappy');
      }
    }
    return this.#ready(place, buffer, length, 'none');
  }

  zero(place: RunPlace, length: number): EncodedRun {
    return { rawBytes: length, finish: (sequence) => makeRecord({ ...place, kind: 'zero', codec: 'none', sequence, length }) };
  }

  #ready(place: RunPlace, bytes: Buffer, length: number, codec: 'none' | 'snappy'): EncodedRun {
    return {
      rawBytes: length,
      finish: (sequence) => {
        this.#rawBytes += length;
        this.#payloadBytes += bytes.length - recordHeaderBytes;
        return sealRecordBytes(bytes, { ...place, kind: 'data', codec, sequence, length });
      },
    };
  }

  /** Sending begins; the returned call ends it. Stretches may overlap: what counts is that anything is being sent. */
  begin(): () => void {
    if (this.#active++ === 0) {
      this.#accountedMs = this.#clock.monotonicMs();
      this.#accountedCpu = process.cpuUsage();
    }
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#account();
      this.#active -= 1;
    };
  }

  /** The link made a sender wait this long, ms. */
  waited(ms: number): void {
    this.#waitedMs += ms;
    this.#account();
  }

  #account(): void {
    const nowMs = this.#clock.monotonicMs();
    const cpu = process.cpuUsage(this.#accountedCpu);
    this.#activeMs += nowMs - this.#accountedMs;
    this.#cpuMs += (cpu.user + cpu.system) / 1000;
    this.#accountedMs = nowMs;
    this.#accountedCpu = process.cpuUsage();
    if (this.#activeMs < sampleMs) return;
    this.#compression = planCompression(this.#compression, {
      nowMs, activeMs: this.#activeMs, waitedMs: this.#waitedMs, rawBytes: this.#rawBytes, payloadBytes: this.#payloadBytes, cpuMs: this.#cpuMs,
    });
    this.#activeMs = this.#cpuMs = this.#waitedMs = this.#rawBytes = this.#payloadBytes = 0;
  }
}

/** The first sector decides for nearly all data; only what starts with zeroes is compared whole. */
function isZero(bytes: Buffer): boolean {
  const head = Math.min(512, bytes.length);
  if (zeroes.compare(bytes, 0, head, 0, head) !== 0) return false;
  for (let at = head; at < bytes.length; at += zeroes.length) {
    const end = Math.min(bytes.length, at + zeroes.length);
    if (zeroes.compare(bytes, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}
