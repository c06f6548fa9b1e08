/**
 * Makes records of runs, once: the payload is read straight behind the room for the header, tested for zeroes, compressed
 * when that pays (compression-plan.ts), checksummed. One encoder per link, as the link is what decides about compression.
 * It knows no socket; who sends tells it when the link makes it wait. Invariant: a buffer is given back to the pool only by
 * the record that it went into, when that has left.
 */
import { availableParallelism, cpus } from 'node:os';
import { compress } from 'snappy';
import type { Clock } from '../../host/clock.ts';
import { recordHeaderBytes, runBytesMax } from '../../journal/limits.ts';
import { makeRecord, sealRecordBytes, type RecordHeader, type RecordView } from '../../journal/record.ts';
import { BufferPool } from '../../host/buffer-pool.ts';
import { initialCompression, isCompressing, planCompression, sampleMs } from './compression-plan.ts';

/** Compressed payloads must be at most this share of the run, or the run travels plain. */
const payingShare = 15 / 16;
/** Shorter runs gain less than the way to another thread and back costs. */
const compressBytesMin = 4096;
/** Unused buffers kept for use again. Fresh megabytes for each run cost as much as encryption does (measured: 0.6 CPU seconds a GiB, mostly collection). */
const pooledBytesMax = 24 * 1024 * 1024;
/** Between two looks at the clocks while senders wait, ms: the processor's clock is dear to read. */
const lookMs = 100;
const zeroes = Buffer.alloc(runBytesMax);

/** Where a run lies and in which delta; what only the sender knows (the sequence) comes when the record is finished. */
export type RunPlace = Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term' | 'disk' | 'offset'>;

/** A run ready to become a record as soon as its sequence is known. */
export interface EncodedRun {
  readonly rawBytes: number;
  finish(sequence: number): RecordView;
  /** To be called when the record's bytes have left: their memory is used again. Absent when there is nothing to give back. */
  readonly release?: () => void;
}

export class Encoder {
  /** Where buffers for data runs come from, with room for the header in front. */
  readonly buffers = new BufferPool(recordHeaderBytes, pooledBytesMax);
  readonly #clock: Clock;
  readonly #hostIdle: () => number;
  #compression = initialCompression;
  #active = 0;
  #accountedMs = 0;
  #accountedCpu: NodeJS.CpuUsage = { user: 0, system: 0 };
  #waiting = 0;
  #waitingSinceMs = 0;
  /** When the sample began, and how idle the host had been by then. */
  #sampleFrom: { readonly idleMs: number; readonly atMs: number } | null = null;
  #activeMs = 0;
  #cpuMs = 0;
  #waitedMs = 0;
  #rawBytes = 0;
  #payloadBytes = 0;

  /** `hostIdle`: time that this host's processors spent idle since it started, all together, ms. */
  constructor(options: { readonly clock: Clock; readonly hostIdle?: () => number }) {
    this.#clock = options.clock;
    this.#hostIdle = options.hostIdle ?? processorsIdleMs;
  }

  /** For the report of the link. */
  compression(): { readonly isOn: boolean; readonly why: string; readonly ratio: number } {
    return { isOn: isCompressing(this.#compression), why: this.#compression.why, ratio: this.#compression.ratio };
  }

  /**
   * A data run whose bytes stand in `buffer` behind the room for the header. The buffer belongs to the record from here on;
   * `release` is called when it is no longer needed, and by default gives it back to the pool.
   */
  async data(place: RunPlace, buffer: Buffer, release: () => void = () => this.buffers.give(buffer)): Promise<EncodedRun> {
    const payload = buffer.subarray(recordHeaderBytes);
    const length = payload.length;
    if (isZero(payload)) {
      release();
      return this.zero(place, length);
    }
    if (isCompressing(this.#compression) && length >= compressBytesMin) {
      const packed = await compress(payload, { copyOutputData: true });
      if (packed.length <= length * payingShare) {
        packed.copy(payload);
        return this.#ready(place, buffer.subarray(0, recordHeaderBytes + packed.length), length, 'snappy', release);
      }
    }
    return this.#ready(place, buffer, length, 'none', release);
  }

  zero(place: RunPlace, length: number): EncodedRun {
    return { rawBytes: length, finish: (sequence) => makeRecord({ ...place, kind: 'zero', codec: 'none', sequence, length }) };
  }

  #ready(place: RunPlace, bytes: Buffer, length: number, codec: 'none' | 'snappy', release: () => void): EncodedRun {
    return {
      rawBytes: length,
      finish: (sequence) => {
        this.#rawBytes += length;
        this.#payloadBytes += bytes.length - recordHeaderBytes;
        return sealRecordBytes(bytes, { ...place, kind: 'data', codec, sequence, length });
      },
      release,
    };
  }

  /** Sending begins; the returned call ends it. Stretches may overlap: what counts is that anything is being sent. */
  begin(): () => void {
    if (this.#active++ === 0) {
      this.#accountedMs = this.#clock.monotonicMs();
      this.#accountedCpu = process.cpuUsage();
      this.#sampleFrom ??= { idleMs: this.#hostIdle(), atMs: this.#accountedMs };
    }
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#account(true);
      this.#active -= 1;
    };
  }

  /** A sender waits for the link; the returned call ends its wait. Waits may overlap: what counts is that anyone waits. */
  wait(): () => void {
    if (this.#waiting++ === 0) this.#waitingSinceMs = this.#clock.monotonicMs();
    return () => {
      this.#waiting -= 1;
      this.#account(false);
    };
  }

  #account(isAtEnd: boolean): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#waiting === 0 && this.#waitingSinceMs > 0) {
      this.#waitedMs += nowMs - this.#waitingSinceMs;
      this.#waitingSinceMs = 0;
    }
    if (this.#active === 0 || (!isAtEnd && nowMs - this.#accountedMs < lookMs)) return;
    const cpu = process.cpuUsage();
    this.#activeMs += nowMs - this.#accountedMs;
    this.#cpuMs += (cpu.user + cpu.system - this.#accountedCpu.user - this.#accountedCpu.system) / 1000;
    this.#accountedMs = nowMs;
    this.#accountedCpu = cpu;
    if (this.#activeMs >= sampleMs) this.#judge(nowMs);
  }

  #judge(nowMs: number): void {
    if (this.#waiting > 0) {
      this.#waitedMs += nowMs - this.#waitingSinceMs;
      this.#waitingSinceMs = nowMs;
    }
    const from = this.#sampleFrom!;
    const idleMs = this.#hostIdle();
    // Raw bytes of nothing but zeroes say nothing about the link.
    if (this.#rawBytes > 0) {
      this.#compression = planCompression(this.#compression, {
        nowMs, activeMs: this.#activeMs, waitedMs: this.#waitedMs, rawBytes: this.#rawBytes, payloadBytes: this.#payloadBytes, cpuMs: this.#cpuMs,
        idleShare: (idleMs - from.idleMs) / (nowMs - from.atMs) / availableParallelism(),
      });
    }
    this.#sampleFrom = { idleMs, atMs: nowMs };
    this.#activeMs = this.#cpuMs = this.#waitedMs = this.#rawBytes = this.#payloadBytes = 0;
  }
}

function processorsIdleMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.idle, 0);
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
