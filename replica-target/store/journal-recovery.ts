/**
 * What a group's journal holds, found by reading it from its first kept segment to its end, and made sound again after a
 * crash: what was never acknowledged is cut off, and what is left is durable when this returns. Damage to anything that was
 * acknowledged is STORE_CORRUPT with file and offset, never cut: all segments but the last end where their successor says,
 * and the last one's witness says up to where it was once synced.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import { recordHeaderBytes, sectorBytes } from '../../journal/limits.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { RecordHeader } from '../../journal/record.ts';
import type { SealPayload } from '../../journal/seal.ts';
import { segmentNumbers, type GroupFolder } from './group-folder.ts';
import { emptyChain, follow, type Chain, type OpenDelta } from './record-order-plan.ts';
import { decodeSegmentHeader, decodeWitness, segmentHeaderBytes, witnessAt, type SegmentHeader } from './segment-header.ts';
import { makeWindow, SegmentReader } from './segment-reader.ts';
import { corrupt, errorCode, newer } from './store-fault.ts';

/** Bytes of one write when a tail is written again. */
const rewriteBytes = 1024 * 1024;

export interface JournalPosition { readonly segment: number; readonly at: number }

/** A sealed delta in the journal. */
export interface SealedDelta {
  readonly id: PointId;
  readonly seal: SealPayload;
  /** Of its open record; null when the segment that held it is trimmed. */
  readonly start: JournalPosition | null;
  readonly end: JournalPosition;
  /** Bytes of its data runs, uncompressed. */
  readonly dataBytes: number;
}

export interface JournalSegment { readonly number: number; readonly start: Chain }

export interface RecoveredJournal {
  /** Ascending, without a gap. Empty for a journal that was never written. */
  readonly segments: readonly JournalSegment[];
  readonly sealed: readonly SealedDelta[];
  /** As of `end`: an open delta has durable parts only. */
  readonly chain: Chain;
  readonly end: JournalPosition;
  /** Of the open delta. */
  readonly open: { readonly start: JournalPosition; readonly dataBytes: number } | null;
}

export interface RecoveryOptions {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly groupId: string;
  /** The replica's newest point: the journal reaches at least there. */
  readonly applied: PointId | null;
  readonly segmentBytes: number;
  /** Called with null when a delta begins, then for each of its runs, those of a torn part included. */
  onRun(header: RecordHeader | null): void;
}

interface Scan {
  chain: Chain;
  sealed: SealedDelta[];
  start: JournalPosition | null;
  dataBytes: number;
  /** At the last part or seal. */
  durable: { chain: Chain; end: JournalPosition; open: RecoveredJournal['open'] };
  /** Up to where the last segment was once synced. */
  witnessed: JournalPosition;
}

export async function recoverJournal(options: RecoveryOptions): Promise<RecoveredJournal> {
  const segments = await keptSegments(options);
  const first = segments[0];
  if (first === undefined) {
    if (options.applied !== null) throw corrupt(options.folder.journal, 0, `the journal is gone; the replica is at ${formatPoint(options.applied)}`);
    return { segments: [], sealed: [], chain: emptyChain, end: { segment: 0, at: 0 }, open: null };
  }
  const begin = { segment: first.number, at: segmentHeaderBytes };
  const scan: Scan = { chain: first.chain, sealed: [], start: null, dataBytes: 0, durable: { chain: first.chain, end: begin, open: null }, witnessed: begin };
  const window = makeWindow(options.segmentBytes);
  for (const [index, segment] of segments.entries()) {
    await scanSegment(options, scan, segment, segments[index + 1] ?? null, window);
  }
  const { chain, end, open } = scan.durable;
  if (options.applied !== null && (chain.newest === null || comparePoints(chain.newest, options.applied) < 0)) {
    throw corrupt(options.folder.segment(end.segment), end.at, `the journal ends before point ${formatPoint(options.applied)}, which the replica holds`);
  }
  await cutBehind(options, segments, end, scan.witnessed);
  return {
    segments: segments.filter(({ number }) => number <= end.segment).map(({ number, chain: start }) => ({ number, start })),
    sealed: scan.sealed, chain, end, open,
  };
}

/** Headers of the segments that count: from behind the last gap on. What a crash left of a trimmed or of a new segment is removed. */
async function keptSegments(options: RecoveryOptions): Promise<SegmentHeader[]> {
  const { disk, folder, applied } = options;
  let numbers = segmentNumbers(await disk.list(folder.journal));
  const last = numbers.at(-1);
  if (last !== undefined && await isUnbegun(disk, folder.segment(last))) {
    await disk.remove(folder.segment(last));
    await disk.syncFolder(folder.journal);
    numbers = numbers.slice(0, -1);
  }
  let from = numbers.length - 1;
  while (from > 0 && numbers[from - 1] === numbers[from]! - 1) from--;
  for (const number of numbers.slice(0, Math.max(0, from))) await disk.remove(folder.segment(number));
  const kept: SegmentHeader[] = [];
  for (const number of numbers.slice(Math.max(0, from))) kept.push(await readSegmentHeader(disk, folder, options.groupId, number));
  const first = kept[0];
  if (first === undefined) return kept;
  const { newest, open } = first.chain;
  const latest = open ?? newest;
  if (latest !== null && (applied === null || comparePoints(latest, applied) > 0)) {
    throw corrupt(folder.segment(first.number - 1), 0, `the segment is gone; it holds records of ${formatPoint(latest)}, and the replica is at ${applied === null ? 'no point' : formatPoint(applied)}`);
  }
  return kept;
}

/** Its header was never made durable, so that no record was ever written to it. */
async function isUnbegun(disk: Disk, path: string): Promise<boolean> {
  return withFile(disk, path, 'read', async (file) => {
    const bytes = Buffer.alloc(segmentHeaderBytes + recordHeaderBytes);
    const length = await file.read(bytes, 0, bytes.length, 0);
    const reading = decodeSegmentHeader(bytes.subarray(0, length));
    return !reading.ok && reading.fault === 'corrupt' && bytes.subarray(segmentHeaderBytes).every((byte) => byte === 0);
  });
}

/** Faults: STORE_CORRUPT, STORE_NEWER. */
export async function readSegmentHeader(disk: Disk, folder: GroupFolder, groupId: string, number: number): Promise<SegmentHeader> {
  const path = folder.segment(number);
  return withFile(disk, path, 'read', async (file) => {
    const bytes = Buffer.alloc(segmentHeaderBytes);
    const reading = decodeSegmentHeader(bytes.subarray(0, await file.read(bytes, 0, bytes.length, 0)));
    if (!reading.ok) throw reading.fault === 'newer' ? newer(path, reading.detail) : corrupt(path, 0, reading.detail);
    if (reading.header.groupId !== groupId || reading.header.number !== number) {
      throw corrupt(path, 0, `is segment ${reading.header.number} of group ${reading.header.groupId}`);
    }
    return reading.header;
  });
}

async function scanSegment(options: RecoveryOptions, scan: Scan, segment: SegmentHeader, next: SegmentHeader | null, window: Buffer): Promise<void> {
  const { disk, folder, groupId } = options;
  const path = folder.segment(segment.number);
  if (!isSameChain(scan.chain, segment.chain)) throw corrupt(path, 0, 'the segment does not begin where its predecessor ends');
  await withFile(disk, path, 'read', async (file) => {
    const end = next?.previousEnd ?? await file.sizeBytes();
    const reader = new SegmentReader(file, segmentHeaderBytes, end, window);
    let stop: string | null = null;
    while (stop === null && reader.at < end) {
      const at = reader.at;
      const reading = await reader.next();
      if (!reading.ok) { stop = reading.detail; break; }
      const following = follow(scan.chain, groupId, reading.record);
      if (!following.ok) { reader.at = at; stop = following.why; break; }
      if (following.event === 'open') options.onRun(null);
      if (following.event === 'run') options.onRun(reading.record.header);
      take(scan, following, reading.record.header, { segment: segment.number, at }, { segment: segment.number, at: reader.at });
    }
    if (next !== null && stop !== null) throw corrupt(path, reader.at, `${stop}; the segment has records up to ${end}`, { point: shownChain(scan.chain) });
    if (next !== null) return;
    const witness = Buffer.alloc(sectorBytes);
    const durableEnd = decodeWitness(witness.subarray(0, await file.read(witness, 0, witness.length, witnessAt)), groupId, segment.number);
    scan.witnessed = { segment: segment.number, at: Math.max(segmentHeaderBytes, durableEnd) };
    if (reader.at < durableEnd) throw corrupt(path, reader.at, `${stop ?? 'the file ends'}; the segment was durable up to ${durableEnd}`, { point: shownChain(scan.chain) });
  });
}

function take(scan: Scan, following: Extract<ReturnType<typeof follow>, { ok: true }>, header: RecordHeader, start: JournalPosition, end: JournalPosition): void {
  scan.chain = following.chain;
  switch (following.event) {
    case 'open':
      scan.start = start;
      scan.dataBytes = 0;
      return;
    case 'run':
      if (header.kind === 'data') scan.dataBytes += header.length;
      return;
    case 'part':
      scan.durable = { chain: scan.chain, end, open: scan.start === null ? null : { start: scan.start, dataBytes: scan.dataBytes } };
      return;
    case 'seal':
      scan.sealed.push({ id: { term: header.term, point: header.point }, seal: following.seal, start: scan.start, end, dataBytes: scan.dataBytes });
      scan.start = null;
      scan.durable = { chain: scan.chain, end, open: null };
      return;
    default: following satisfies never;
  }
}

/**
 * Segments behind `end` go, highest first and each durably, so that no crash leaves a gap; the rest of its own segment is cut
 * off. What is kept and no witness speaks of is written again before it is synced: a sync may have failed just before the
 * process ended, and then the system reads back what it will never write.
 */
async function cutBehind({ disk, folder, segmentBytes }: RecoveryOptions, segments: readonly SegmentHeader[], end: JournalPosition, witnessed: JournalPosition): Promise<void> {
  await removeSegmentsAbove(disk, folder, segments.map(({ number }) => number), end.segment);
  await withFile(disk, folder.segment(end.segment), 'readWrite', async (file) => {
    await cutFile(file, end.at, segmentBytes);
    // Without a witness nothing was ever synced but the header, and that perhaps not either.
    if (witnessed.segment === end.segment) await writeAgain(file, witnessed.at === segmentHeaderBytes ? 0 : witnessed.at, end.at);
    await file.sync();
  });
  await disk.syncFolder(folder.journal);
}

async function writeAgain(file: DiskFile, from: number, to: number): Promise<void> {
  const bytes = Buffer.allocUnsafe(Math.min(rewriteBytes, Math.max(0, to - from)));
  for (let at = from; at < to; at += rewriteBytes) {
    const read = await file.read(bytes, 0, Math.min(bytes.length, to - at), at);
    await file.write(bytes.subarray(0, read), at);
  }
}

export async function removeSegmentsAbove(disk: Disk, folder: GroupFolder, numbers: readonly number[], last: number): Promise<void> {
  for (const number of numbers.filter((candidate) => candidate > last).sort((a, b) => b - a)) {
    try {
      await disk.remove(folder.segment(number));
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
    await disk.syncFolder(folder.journal);
  }
}

/** Nothing is left behind `at`, and there is room for the segment again if the disk has it. Not synced. */
export async function cutFile(file: DiskFile, at: number, segmentBytes: number): Promise<void> {
  await file.truncate(at);
  if (at >= segmentBytes) return;
  try {
    await file.preallocate(segmentBytes);
  } catch (error) {
    // Room for the rest is a convenience here: the write that needs it will say so.
    if (errorCode(error) !== 'ENOSPC') throw error;
  }
}

async function withFile<T>(disk: Disk, path: string, mode: 'read' | 'readWrite', use: (file: DiskFile) => Promise<T>): Promise<T> {
  const file = await disk.open(path, mode);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

function isSameChain(a: Chain, b: Chain): boolean {
  return isSamePoint(a.newest, b.newest) && a.newestDeltaId === b.newestDeltaId && isSameOpen(a.open, b.open);
}

function isSameOpen(a: OpenDelta | null, b: OpenDelta | null): boolean {
  if (a === null || b === null) return a === b;
  return a.deltaId === b.deltaId && isSamePoint(a, b) && a.nextSequence === b.nextSequence && a.parts === b.parts && a.isAtPart === b.isAtPart;
}

function shownChain(chain: Chain): string | null {
  const at = chain.open ?? chain.newest;
  return at === null ? null : formatPoint(at);
}
