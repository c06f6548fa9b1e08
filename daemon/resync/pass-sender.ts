/**
 * Where a full pass goes: a first sync straight into the target's replica (records of point 0), a resync as parts of an
 * unsealed delta, which gives it history. When compared, each run is first asked about by hash and only blocks that differ
 * travel. A write resolves when its records have their place on the wire, so a later write of the same bytes comes later.
 */
import { blake3 } from '@napi-rs/blake-hash';
import type { Random } from '../../host/random.ts';
import type { Extent } from '../../journal/extents.ts';
import { compareBlockBytes, comparePageBytes, recordHeaderBytes, zeroRunBytesMax } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import { makeRecord, type RecordHeader } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { FullPassSink } from '../capture/capture.ts';
import { differingStretches } from './compare-plan.ts';
import { awaitAck, type AckWait } from '../stream/await-ack.ts';
import { deltaIdentity, frameHeader } from '../stream/delta-sender.ts';
import type { Encoder } from '../stream/encoder.ts';
import { RecordLane } from '../stream/record-lane.ts';
import type { TargetSession } from '../stream/session.ts';

/** A part is made durable at least this often, so that a break loses no more, bytes. */
const partBytes = 256 * 1024 * 1024;

export interface PassSenderOptions {
  readonly session: TargetSession;
  readonly groupId: string;
  /** What the target said when it was announced to. */
  readonly holding: GroupHolding;
  readonly base: PointId;
  readonly next: PointId;
  readonly kind: 'seed' | 'delta';
  /** Of the first sync, as given to `seedBegin`; drawn anew for a delta that is opened here. */
  readonly seedDeltaId?: bigint;
  readonly isCompared: boolean;
  /** Of a comparison; at most as many to a run as one message may ask about. */
  readonly blockBytes?: number;
  readonly encoder: Encoder;
  readonly random: Random;
  readonly signal?: AbortSignal;
}

export class PassSender implements FullPassSink {
  readonly #o: PassSenderOptions;
  readonly #identity: Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term'>;
  readonly #lane: RecordLane;
  readonly #ended: () => void;
  #parts: number;
  #isOpen: boolean;
  #bytesSincePart = 0;
  /** The newest part's acknowledgement. */
  #lastPart: AckWait | null = null;
  readonly #blockBytes: number;
  #comparedBytes = 0;

  constructor(options: PassSenderOptions) {
    this.#o = options;
    this.#blockBytes = options.blockBytes ?? compareBlockBytes;
    const { groupId, holding, base, next, kind, random } = options;
    const open = kind === 'delta' ? holding.open : null;
    this.#identity = kind === 'seed'
      ? { groupId, term: holding.term, point: 0, deltaId: options.seedDeltaId ?? 0n }
      : deltaIdentity({ groupId, term: holding.term, base, next, open }, random);
    this.#lane = new RecordLane(options.session, options.encoder, open?.nextSequence ?? 0, options.signal, true);
    this.#parts = open?.parts ?? 0;
    this.#isOpen = open !== null;
    this.#ended = options.encoder.begin();
  }

  /** For the server that the mirror writes to: its buffers come back here and are used again. */
  get buffers(): { take(bytes: number): Buffer; takenBytes(bytes: number): number } {
    return this.#o.encoder.buffers;
  }

  get sentBytes(): number {
    return this.#lane.sentBytes;
  }

  get comparedBytes(): number {
    return this.#comparedBytes;
  }

  async write(disk: number, offset: number, buffer: Buffer, headroomBytes: number): Promise<void> {
    if (headroomBytes !== recordHeaderBytes) throw new RangeError(`headroom of ${headroomBytes} bytes`);
    const { encoder, isCompared } = this.#o;
    if (!isCompared) return this.#data(disk, offset, buffer);
    const stretches = await this.#differing(disk, offset, buffer.subarray(headroomBytes));
    if (stretches.length === 0) return encoder.buffers.give(buffer);
    let left = stretches.length;
    const release = (): void => {
      left -= 1;
      if (left === 0) encoder.buffers.give(buffer);
    };
    // The header goes into the end of the block in front, which is equal and therefore not needed any more.
    for (const { start, end } of stretches) await this.#data(disk, offset + start, buffer.subarray(start, headroomBytes + end), release);
  }

  async zero(disk: number, offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += zeroRunBytesMax) {
      await this.#open();
      await this.#lane.send(this.#o.encoder.zero({ ...this.#identity, disk, offset: offset + at }, Math.min(zeroRunBytesMax, length - at)));
      this.#bytesSincePart += recordHeaderBytes;
    }
  }

  /** Everything was written: resolves once the target holds it durably, with the unsealed delta as it stands there. */
  async finish(): Promise<{ readonly open: GroupHolding['open']; readonly sentBytes: number; readonly comparedBytes: number }> {
    try {
      if (this.#o.kind === 'seed') {
        await this.#o.session.seedEnd(this.#o.groupId);
        return { open: null, sentBytes: this.sentBytes, comparedBytes: this.#comparedBytes };
      }
      if (this.#bytesSincePart > 0) await this.#part();
      // Acknowledgements come in order: that of the newest part covers all before it, whoever sent it.
      await this.#lastPart?.acknowledged;
      const open = this.#isOpen
        ? { point: this.#identity.point, deltaId: this.#identity.deltaId.toString(16).padStart(16, '0'), nextSequence: this.#lane.nextSequence, parts: this.#parts }
        : null;
      return { open, sentBytes: this.sentBytes, comparedBytes: this.#comparedBytes };
    } finally {
      this.abandon();
    }
  }

  /** The pass is over, or was given up: nothing more will come. */
  abandon(): void {
    this.#lastPart?.stop();
    this.#ended();
  }

  async #data(disk: number, offset: number, buffer: Buffer, release?: () => void): Promise<void> {
    const run = await this.#o.encoder.data({ ...this.#identity, disk, offset }, buffer, release);
    await this.#open();
    this.#bytesSincePart += run.rawBytes;
    const sent = this.#lane.send(run);
    // The part behind it may be told first that the session is over.
    sent.catch(() => undefined);
    if (this.#o.kind === 'delta' && this.#bytesSincePart >= partBytes) await this.#part();
    await sent;
  }

  /** In bytes of the run, in order; between two there is an equal block. Where a block differs its pages are asked about: most of what guests write is no larger. */
  async #differing(disk: number, offset: number, bytes: Buffer): Promise<Extent[]> {
    const found: Extent[] = [];
    for (const block of await this.#compare(disk, offset, bytes, this.#blockBytes)) {
      if (this.#blockBytes <= comparePageBytes) found.push(block);
      else for (const page of await this.#compare(disk, offset + block.start, bytes.subarray(block.start, block.end), comparePageBytes)) found.push({ start: block.start + page.start, end: block.start + page.end });
    }
    return found;
  }

  async #compare(disk: number, offset: number, bytes: Buffer, blockBytes: number): Promise<Extent[]> {
    const count = Math.ceil(bytes.length / blockBytes);
    const hashes = Buffer.allocUnsafe(count * 32);
    for (let block = 0; block < count; block++) blake3(bytes.subarray(block * blockBytes, Math.min(bytes.length, (block + 1) * blockBytes))).copy(hashes, block * 32);
    if (blockBytes === this.#blockBytes) this.#comparedBytes += bytes.length;
    const bits = await this.#o.session.compare({ groupId: this.#o.groupId, disk, offset, length: bytes.length, blockBytes, hashes });
    return differingStretches(bits).map(({ first, end }) => ({ start: first * blockBytes, end: Math.min(bytes.length, end * blockBytes) }));
  }

  /** The `open` record goes out in the tick in which the first run asks for it, so it is first. */
  #open(): Promise<void> | undefined {
    if (this.#isOpen || this.#o.kind === 'seed') return undefined;
    this.#isOpen = true;
    return this.#lane.sendRecord(makeRecord(frameHeader(this.#identity, 'open', this.#lane.nextSequence), encodePayload({ base: this.#o.base })));
  }

  async #part(): Promise<void> {
    this.#bytesSincePart = 0;
    this.#parts += 1;
    const { term, point } = this.#identity;
    this.#lastPart?.stop();
    this.#lastPart = awaitAck(this.#o.session, this.#o.groupId, { term, point, part: this.#parts }, this.#o.signal);
    await this.#lane.sendRecord(makeRecord(frameHeader(this.#identity, 'part', this.#lane.nextSequence), encodePayload({ part: this.#parts })));
  }
}
