/**
 * Whether a record follows its predecessor, decided from nothing but the two (FORMAT.md, "Order"). Pure. The same decision
 * is made when a record arrives and when a segment is read again, so that what was taken once is taken always, and what a
 * guest wrote into its own disk (old records of ours included) is never taken for a record.
 */
import { deltaRecordsMax } from '../../journal/limits.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { RecordView } from '../../journal/record.ts';
import { decodePayload, openPayload, partPayload, sealPayload, type SealPayload } from '../../journal/seal.ts';

/** A delta that is not sealed yet. */
export interface OpenDelta {
  readonly deltaId: bigint;
  readonly term: number;
  readonly point: number;
  readonly nextSequence: number;
  /** Durable parts so far. */
  readonly parts: number;
  /** The last record was a part: nothing after it is at stake. */
  readonly isAtPart: boolean;
}

/** Where a chain of records stands. */
export interface Chain {
  readonly newest: PointId | null;
  /** Of the newest sealed delta, so that it is not taken twice; 0 for none. */
  readonly newestDeltaId: bigint;
  readonly open: OpenDelta | null;
}

export const emptyChain: Chain = { newest: null, newestDeltaId: 0n, open: null };

export type Following =
  | { readonly ok: true; readonly chain: Chain; readonly event: 'open' | 'run' }
  | { readonly ok: true; readonly chain: Chain; readonly event: 'part'; readonly part: number }
  | { readonly ok: true; readonly chain: Chain; readonly event: 'seal'; readonly seal: SealPayload }
  | { readonly ok: false; readonly code: 'RECORD_MISPLACED' | 'DELTA_BASE'; readonly why: string };

export function follow(chain: Chain, groupId: string, record: RecordView): Following {
  const { header } = record;
  if (header.groupId !== groupId) return misplaced(`of group ${header.groupId}`);
  return header.kind === 'open' ? followOpen(chain, record) : followInside(chain, record);
}

function followOpen(chain: Chain, record: RecordView): Following {
  const { header } = record;
  if (chain.open !== null) return misplaced(`a new delta inside delta ${hexId(chain.open.deltaId)}`);
  if (header.sequence !== 0) return misplaced(`an open record of sequence ${header.sequence}`);
  if (header.deltaId === 0n || header.deltaId === chain.newestDeltaId) return misplaced(`delta ${hexId(header.deltaId)} again`);
  const payload = decodePayload(openPayload, payloadOf(record));
  if (payload === undefined) return misplaced('an open record without its facts');
  if (!isSamePoint(payload.base, chain.newest)) {
    return { ok: false, code: 'DELTA_BASE', why: `a delta from ${shown(payload.base)}, the newest sealed point is ${shown(chain.newest)}` };
  }
  const wrong = pointFault(chain.newest, header);
  if (wrong !== null) return misplaced(wrong);
  const { deltaId, term, point } = header;
  return { ok: true, event: 'open', chain: { ...chain, open: { deltaId, term, point, nextSequence: 1, parts: 0, isAtPart: false } } };
}

function followInside(chain: Chain, record: RecordView): Following {
  const { header } = record;
  const { open } = chain;
  if (open === null) return misplaced(`a ${header.kind} record outside a delta`);
  if (header.deltaId !== open.deltaId) return misplaced(`of delta ${hexId(header.deltaId)} in delta ${hexId(open.deltaId)}`);
  if (open.nextSequence > deltaRecordsMax) return misplaced(`more than ${deltaRecordsMax} records in delta ${hexId(open.deltaId)}`);
  if (header.sequence !== open.nextSequence) return misplaced(`sequence ${header.sequence}, expected ${open.nextSequence}`);
  if (header.term !== open.term || header.point !== open.point) {
    // From a durable part on the same delta may go on in a raised term, after a failover that was rolled back, or toward a later point of another target's.
    const wrong = open.isAtPart && comparePoints(header, open) > 0 ? pointFault(chain.newest, header) : `of point ${formatPoint(header)} in a delta of ${formatPoint(open)}`;
    if (wrong !== null) return misplaced(wrong);
  }
  const next: OpenDelta = { ...open, term: header.term, point: header.point, nextSequence: header.sequence + 1, isAtPart: false };
  switch (header.kind) {
    case 'data': case 'zero': return { ok: true, event: 'run', chain: { ...chain, open: next } };
    case 'part': {
      const payload = decodePayload(partPayload, payloadOf(record));
      if (payload?.part !== open.parts + 1) return misplaced(`part ${payload?.part ?? '?'}, expected ${open.parts + 1}`);
      return { ok: true, event: 'part', part: payload.part, chain: { ...chain, open: { ...next, parts: payload.part, isAtPart: true } } };
    }
    case 'seal': {
      const seal = decodePayload(sealPayload, payloadOf(record));
      if (seal === undefined) return misplaced('a seal without its facts');
      if (!isSamePoint(seal.base, chain.newest)) return misplaced(`a seal from ${shown(seal.base)} in a delta from ${shown(chain.newest)}`);
      if (seal.records !== header.sequence + 1) return misplaced(`a seal of ${seal.records} records at sequence ${header.sequence}`);
      if (new Set(seal.disks.map(({ disk }) => disk)).size !== seal.disks.length) return misplaced('a seal that names a disk twice');
      return { ok: true, event: 'seal', seal, chain: { newest: { term: header.term, point: header.point }, newestDeltaId: header.deltaId, open: null } };
    }
    case 'open': throw new Error('an open record is followed by followOpen');
    default: return header.kind satisfies never;
  }
}

/** The point that a delta from `newest` leads to in `term`: numbering starts at 1 in each term. */
export function pointAfter(newest: PointId | null, term: number): number {
  return newest !== null && newest.term === term ? newest.point + 1 : 1;
}

function pointFault(newest: PointId | null, header: PointId): string | null {
  if (header.term < 1 || (newest !== null && header.term < newest.term)) return `of term ${header.term} after point ${shown(newest)}`;
  // A source that sends on another target's points leaves out those that were sealed there while it could not reach this one.
  return header.point >= pointAfter(newest, header.term) ? null : `of point ${formatPoint(header)} after point ${shown(newest)}`;
}

function payloadOf(record: RecordView): Buffer {
  return record.bytes.subarray(record.bytes.length - record.header.payloadBytes);
}

function shown(point: PointId | null): string {
  return point === null ? 'nothing' : formatPoint(point);
}

export function hexId(deltaId: bigint): string {
  return deltaId.toString(16).padStart(16, '0');
}

function misplaced(why: string): Following {
  return { ok: false, code: 'RECORD_MISPLACED', why };
}
