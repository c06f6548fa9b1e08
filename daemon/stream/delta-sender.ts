/**
 * Sends one captured delta and waits until the target holds it: `open` (unless an unsealed delta is continued), its runs,
 * then `seal`, or `part` for a round. Reads ahead a bounded number of runs; what leaves is in the capture's order.
 */
import type { Random } from '../../host/random.ts';
import { runBytesMax } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import { makeRecord, type RecordHeader } from '../../journal/record.ts';
import { encodePayload, type FreezeFacts, type SealPayload } from '../../journal/seal.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { CapturedDelta, CapturedRun } from '../capture/capture.ts';
import { awaitAck } from './await-ack.ts';
import type { EncodedRun, Encoder } from './encoder.ts';
import { RecordLane } from './record-lane.ts';
import type { TargetSession } from './session.ts';

/** Runs that are read and encoded ahead of the one being sent, and their bytes. */
const aheadMax = 32;
const aheadBytesMax = 8 * runBytesMax;

export interface DeltaPlace {
  readonly groupId: string;
  readonly term: number;
  /** Null for the first point of a group. */
  readonly base: PointId | null;
  readonly next: PointId;
  /** The unsealed delta with durable parts that the target holds, to be continued; null to open a new one. */
  readonly open: GroupHolding['open'];
}

export interface DeltaSending extends DeltaPlace {
  /** What the seal says beyond the delta's own facts. */
  readonly about?: FreezeFacts & { readonly label?: string | undefined };
  readonly random: Random;
  readonly encoder: Encoder;
  /** Called when the last record has left; what follows is to wait for the target. */
  readonly onLeft?: () => void;
  readonly signal?: AbortSignal;
}

export interface DeltaSent {
  readonly sentBytes: number;
  /** After a round: the unsealed delta, as the target holds it now. Null after a seal. */
  readonly open: GroupHolding['open'];
}

/** What the records of one unsealed delta have in common. */
export function deltaIdentity(place: DeltaPlace, random: Random): Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term'> {
  return {
    groupId: place.groupId, term: place.next.term, point: place.next.point,
    deltaId: place.open === null ? random.bytes(8).readBigUInt64LE() : BigInt(`0x${place.open.deltaId}`),
  };
}

/** Header of a record that frames a delta. */
export function frameHeader(identity: Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term'>, kind: 'open' | 'part' | 'seal', sequence: number): Omit<RecordHeader, 'payloadBytes'> {
  return { ...identity, kind, codec: 'none', disk: 0, offset: 0, length: 0, sequence };
}

export async function sendDelta(session: TargetSession, sending: DeltaSending, delta: CapturedDelta): Promise<DeltaSent> {
  const { encoder, open, signal } = sending;
  const identity = deltaIdentity(sending, sending.random);
  const lane = new RecordLane(session, encoder, open?.nextSequence ?? 0, signal);
  const part = (open?.parts ?? 0) + 1;
  const ack = awaitAck(session, sending.groupId, { term: identity.term, point: identity.point, ...(delta.isRound ? { part } : {}) }, signal);
  const ended = encoder.begin();
  try {
    if (open === null) await lane.sendRecord(makeRecord(frameHeader(identity, 'open', 0), encodePayload({ base: sending.base })));
    for await (const run of encodedAhead(delta.runs(), identity, encoder)) {
      await lane.send(run);
    }
    const sequence = lane.nextSequence;
    if (delta.isRound) {
      await lane.sendRecord(makeRecord(frameHeader(identity, 'part', sequence), encodePayload({ part })));
    } else {
      const seal: SealPayload = {
        base: sending.base, kind: delta.kind, cutAtMs: Math.round(delta.cutAtMs), records: sequence + 1, changedBytes: delta.changedBytes, disks: delta.disks.map((disk) => ({ ...disk })), ...delta.about, ...sending.about,
      };
      await lane.sendRecord(makeRecord(frameHeader(identity, 'seal', sequence), encodePayload(seal)));
    }
    ended();
    sending.onLeft?.();
    await ack.acknowledged;
  } finally {
    ended();
    ack.stop();
  }
  return {
    sentBytes: lane.sentBytes,
    open: delta.isRound ? { point: identity.point, deltaId: identity.deltaId.toString(16).padStart(16, '0'), nextSequence: lane.nextSequence, parts: part } : null,
  };
}

/** Encodes up to `aheadMax` runs at once and yields them in order. Whatever was begun is waited for before this ends. */
async function* encodedAhead(runs: Iterable<CapturedRun>, identity: Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term'>, encoder: Encoder): AsyncGenerator<EncodedRun, void, undefined> {
  const ahead: { readonly encoded: Promise<EncodedRun>; readonly bytes: number }[] = [];
  let aheadBytes = 0;
  const next = (): Promise<EncodedRun> => {
    const { encoded, bytes } = ahead.shift()!;
    aheadBytes -= bytes;
    return encoded;
  };
  try {
    for (const run of runs) {
      const bytes = run.kind === 'zero' ? 0 : run.length;
      while (ahead.length > 0 && (ahead.length >= aheadMax || aheadBytes + bytes > aheadBytesMax)) yield await next();
      const encoded = encodeRun(run, identity, encoder);
      encoded.catch(() => undefined);
      ahead.push({ encoded, bytes });
      aheadBytes += bytes;
    }
    while (ahead.length > 0) yield await next();
  } finally {
    await Promise.allSettled(ahead.map(({ encoded }) => encoded));
  }
}

async function encodeRun(run: CapturedRun, identity: Pick<RecordHeader, 'groupId' | 'deltaId' | 'point' | 'term'>, encoder: Encoder): Promise<EncodedRun> {
  const place = { ...identity, disk: run.disk, offset: run.offset };
  if (run.kind === 'zero') return encoder.zero(place, run.length);
  if (run.length > runBytesMax) throw new RangeError(`run of ${run.length} bytes`);
  const buffer = encoder.buffers.take(run.length);
  await run.read(buffer, buffer.length - run.length);
  return encoder.data(place, buffer);
}
