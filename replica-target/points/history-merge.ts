/**
 * Neighbouring history files made one, read front to back and written front to back: for each byte the oldest before-image wins,
 * which is what the disks held at the run's first boundary. What that boundary's disks did not have is left out: disks added since,
 * and what lay beyond their ends. Memory is a buffer a file, whatever the files hold. The files that went in are not touched.
 */
import assert from 'node:assert/strict';
import type { Disk } from '../../host/disk.ts';
import { runBytesMax } from '../../journal/limits.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import type { HistoryFacts, HistoryRun } from '../store/history-format.ts';
import { HistoryWriter } from '../store/history-writer.ts';
import { corrupt } from '../store/store-fault.ts';
import type { HistoryFile } from './history-set.ts';
import { RunStream } from './run-stream.ts';

/** Files that are read at once, and the memory for that: a run of 1 MiB for each, or less where the whole file is less. */
const mergedFilesMax = 512;
const mergedBytesMax = 64 * 1024 * 1024;

/** How many of these neighbours, from `at` on, can be merged at once: two at least. */
export function mergedAtOnce(files: readonly HistoryFile[], at: number): number {
  let count = 0;
  let bytes = 0;
  for (; at + count < files.length && count < mergedFilesMax; count++) {
    bytes += Math.min(files[at + count]!.sizeBytes, runBytesMax);
    if (count >= 2 && bytes > mergedBytesMax) break;
  }
  return count;
}

export interface MergeOptions { readonly disk: Disk; readonly folder: GroupFolder; readonly groupId: string }

export interface Merged { readonly file: HistoryFile; readonly readBytes: number }

interface Head { readonly stream: RunStream; run: HistoryRun | null; /** Of the run: what lies before is written, or was in an older file. */ start: number; end: number }

/** `files`: neighbours, oldest first. The merged one is durable under its name when it resolves; on a throw there is none. Faults: STORE_*. */
export async function mergeHistory(o: MergeOptions, files: readonly HistoryFile[]): Promise<Merged> {
  assert(files.length > 1 && files.length <= mergedFilesMax, `${files.length} files are merged at once`);
  const streams: RunStream[] = [];
  let writer: HistoryWriter | null = null;
  try {
    for (const { name } of files) streams.push(await RunStream.open(o.disk, o.folder, name));
    const facts = factsOf(o, files, streams);
    writer = await HistoryWriter.begin(o.disk, o.folder, facts);
    await mergeRuns(streams, new Map(facts.disksBefore.map(({ disk, sizeBytes }) => [disk, sizeBytes])), writer);
    const sealed = await writer.seal();
    return { file: { ...sealed, from: facts.from, to: facts.to }, readBytes: streams.reduce((sum, { readBytes }) => sum + readBytes, 0) };
  } finally {
    await writer?.close();
    for (const stream of streams) await stream.close();
  }
}

/** Of the points only the last stays: the others' boundaries go. */
function factsOf(o: MergeOptions, files: readonly HistoryFile[], streams: readonly RunStream[]): HistoryFacts {
  const first = streams[0]!.facts;
  const last = streams.at(-1)!.facts;
  for (const [index, { facts }] of streams.entries()) if (facts.groupId !== o.groupId) throw corrupt(o.folder.undo(files[index]!.name), 0, `it belongs to group ${facts.groupId}`);
  return { groupId: o.groupId, from: first.from, to: last.to, disksBefore: first.disksBefore, disksAfter: last.disksAfter, points: [last.points.at(-1)!] };
}

async function mergeRuns(streams: readonly RunStream[], sizes: ReadonlyMap<number, number>, writer: HistoryWriter): Promise<void> {
  const heads: Head[] = streams.map((stream) => ({ stream, run: null, start: 0, end: 0 }));
  for (const head of heads) await advance(head, sizes);
  for (;;) {
    const piece = nextPiece(heads);
    if (piece === null) return;
    const { head, end } = piece;
    const { run, start } = head;
    assert(run !== null);
    if (run.kind === 'zero') {
      await writer.zero(run.disk, start, end - start);
    } else {
      const payload = await head.stream.payload();
      const room = await writer.room(end - start);
      payload.copy(room, 0, start - run.offset, end - run.offset);
      writer.data(run.disk, start, end - start);
    }
    for (const other of heads) {
      // A newer file may have several runs within what was written.
      while (other.run?.disk === run.disk && other.start < end) {
        other.start = end;
        if (other.start >= other.end) await advance(other, sizes);
      }
    }
  }
}

/** The lowest run that is left, the oldest file's where several begin there, up to where an older file's begins. */
function nextPiece(heads: readonly Head[]): { readonly head: Head; readonly end: number } | null {
  let found: Head | null = null;
  for (const head of heads) {
    if (head.run === null) continue;
    if (found === null || head.run.disk < found.run!.disk || (head.run.disk === found.run!.disk && head.start < found.start)) found = head;
  }
  if (found === null) return null;
  let { end } = found;
  for (const head of heads) {
    if (head === found) break;
    if (head.run?.disk === found.run!.disk && head.start < end) end = head.start;
  }
  return { head: found, end };
}

/** To the next run of which the first boundary had anything. */
async function advance(head: Head, sizes: ReadonlyMap<number, number>): Promise<void> {
  for (;;) {
    head.run = await head.stream.next();
    if (head.run === null) return;
    head.start = head.run.offset;
    head.end = Math.min(head.run.offset + head.run.length, sizes.get(head.run.disk) ?? 0);
    if (head.start < head.end) return;
  }
}
