/**
 * Reads what a group's points are made from and checks every checksum that there is: of each record that the journal still
 * holds, of each before-image and index of the history, and of each block of the replica that has lain still since the last
 * pass (replica-check.ts); with a point named, its whole view too. Damage is no fault here but a finding: it says file and
 * offset, which points it touches and which remain good. Changes nothing but the replica's sums.
 */
import { Fault, isFault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import { segmentNumbers } from '../store/group-folder.ts';
import { HistoryReader } from '../store/history-reader.ts';
import { readSegmentHeader } from '../store/journal-recovery.ts';
import { decodeWitness, segmentHeaderBytes, witnessAt } from '../store/segment-header.ts';
import { makeWindow, SegmentReader } from '../store/segment-reader.ts';
import { errorCode } from '../store/store-fault.ts';
import { sectorBytes } from '../../journal/limits.ts';
import type { GroupPointsOptions } from './group-points.ts';
import type { HistoryFile } from './history-set.ts';
import type { GroupPoints, PointView } from './points.ts';
import { checkReplica } from './replica-check.ts';
import { isInSpan, spanOf, type DamagedPlace, type PointSpan } from './touched-points.ts';

/** Of one damaged place. `points`: restorable points that need it, as term.point; more than `pointsTold` are only counted. */
export interface Finding {
  readonly path: string;
  readonly offset: number;
  readonly detail: string;
  readonly disk: number | null;
  readonly touched: { readonly count: number; readonly oldest: string | null; readonly newest: string | null };
}

export interface Verification {
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly journalBytes: number;
  readonly historyBytes: number;
  readonly replicaBytes: number;
  /** Of the replica: what could be compared with a checksum of before. */
  readonly replicaComparedBytes: number;
  /** The point that was read whole, and its bytes; null when none was asked for. */
  readonly read: { readonly point: string; readonly bytes: number } | null;
  readonly findings: readonly Finding[];
  /** Findings beyond those that are listed. */
  readonly findingsLeftOff: number;
  readonly points: { readonly count: number; readonly goodCount: number; readonly newestGood: string | null };
}

/** Findings that are listed; a disk that is gone bad has millions. */
const findingsMax = 1000;
const readBytes = 1024 * 1024;

export interface VerifyParts extends Omit<GroupPointsOptions, 'catalog' | 'nameOf' | 'log'> {
  readonly points: GroupPoints;
  /** Waits as long as a rate limit asks for; rejects to end it. */
  pace(bytes: number): Promise<void>;
}

export async function verifyGroup(o: VerifyParts, at: PointId | null): Promise<Verification> {
  const run = new Verifying(o);
  return run.all(at);
}

class Verifying {
  readonly #o: VerifyParts;
  readonly #found: { path: string; offset: number; detail: string; disk: number | null; span: PointSpan }[] = [];
  #foundCount = 0;
  #journalBytes = 0;
  #historyBytes = 0;

  constructor(o: VerifyParts) {
    this.#o = o;
  }

  async all(at: PointId | null): Promise<Verification> {
    const { clock, history, points } = this.#o;
    const startedAtMs = clock.nowMs();
    const lease = history.lease();
    let checked;
    let read: Verification['read'] = null;
    try {
      const files = lease.files.slice(0, lease.count);
      for (const index of files.keys()) await this.#history(files, index);
      await this.#journal(files);
      checked = await this.#replica(files);
      if (at !== null) read = await this.#view(at);
    } finally {
      lease.release();
    }
    const all = await points.list();
    const spans = this.#found.map(({ span }) => span);
    const good = all.filter((point) => !spans.some((span) => isInSpan(point, span)));
    const newestGood = good.at(-1);
    return {
      startedAtMs, endedAtMs: clock.nowMs(), journalBytes: this.#journalBytes, historyBytes: this.#historyBytes,
      replicaBytes: checked.readBytes, replicaComparedBytes: checked.comparedBytes, read,
      findings: this.#found.map(({ span, ...found }) => {
        const touched = all.filter((point) => isInSpan(point, span));
        const [oldest, newest] = [touched[0], touched.at(-1)];
        return { ...found, touched: { count: touched.length, oldest: oldest === undefined ? null : formatPoint(oldest), newest: newest === undefined ? null : formatPoint(newest) } };
      }),
      findingsLeftOff: this.#foundCount - this.#found.length,
      points: { count: all.length, goodCount: good.length, newestGood: newestGood === undefined ? null : formatPoint(newestGood) },
    };
  }

  async #history(files: readonly HistoryFile[], index: number): Promise<void> {
    const { disk, folder } = this.#o;
    const file = files[index]!;
    let reader: HistoryReader;
    try {
      reader = await HistoryReader.open(disk, folder, file.name);
    } catch (error) {
      return this.#corrupt(error, folder.undo(file.name), () => spanOf(disk, folder, files, index, null), null);
    }
    try {
      for (let entry = 0; entry < reader.count; entry++) {
        const run = reader.entry(entry);
        await this.#o.pace(run.kind === 'zero' ? 0 : run.length);
        try {
          await reader.run(run);
        } catch (error) {
          await this.#corrupt(error, folder.undo(file.name), () => this.#spanOrAll(files, index, run), run.disk);
        }
      }
      this.#historyBytes += reader.sizeBytes;
    } finally {
      await reader.close();
    }
  }

  /** Records as they lie in the segments, up to where each is known to be durable. A segment that is trimmed meanwhile is none. */
  async #journal(files: readonly HistoryFile[]): Promise<void> {
    const { disk, folder, groupId, segmentBytes } = this.#o;
    const numbers = segmentNumbers(await disk.list(folder.journal));
    const window = makeWindow(segmentBytes);
    for (const [index, number] of numbers.entries()) {
      const path = folder.segment(number);
      let newest: PointId | null = null;
      try {
        const file = await disk.open(path, 'read');
        try {
          const witness = Buffer.alloc(sectorBytes);
          const end = index + 1 < numbers.length ? (await readSegmentHeader(disk, folder, groupId, number + 1)).previousEnd
            : decodeWitness(witness.subarray(0, await file.read(witness, 0, witness.length, witnessAt)), groupId, number);
          newest = (await readSegmentHeader(disk, folder, groupId, number)).chain.newest;
          const reader = new SegmentReader(file, segmentHeaderBytes, end, window);
          while (reader.at < end) {
            const start = reader.at;
            const reading = await reader.next();
            if (!reading.ok) throw new Fault('STORE_CORRUPT', `${path}, offset ${start}: ${reading.detail}`, { path, offset: start });
            const { kind, term, point } = reading.record.header;
            if (kind === 'seal') newest = { term, point };
            this.#journalBytes += reading.record.bytes.length;
            await this.#o.pace(reading.record.bytes.length);
          }
        } finally {
          await file.close();
        }
      } catch (error) {
        if (errorCode(error) === 'ENOENT') continue;
        // What follows in the segment cannot be found: all points behind it that the history alone does not produce.
        const from = newest;
        await this.#corrupt(error, path, () => Promise.resolve(journalSpan(files, from)), null);
      }
    }
  }

  async #replica(files: readonly HistoryFile[]): Promise<{ readonly readBytes: number; readonly comparedBytes: number }> {
    const { disk, folder, history, replica, mark, pace } = this.#o;
    const { disks: sizes, applied } = mark();
    const checked = await checkReplica({ disk, folder, history, replica, sizes, applied, pace: (bytes) => pace(bytes) });
    for (const block of checked.damaged) {
      this.#foundCount++;
      if (this.#found.length >= findingsMax) continue;
      this.#found.push({
        path: folder.image(block.disk), offset: block.offset, disk: block.disk, detail: `${block.length} bytes are not what they were, and nothing was written there`,
        span: await this.#spanOrAll(files, files.length, block),
      });
    }
    return checked;
  }

  async #view(point: PointId): Promise<Verification['read']> {
    const span = (): Promise<PointSpan> => Promise.resolve({ from: point, before: { term: point.term, point: point.point + 1 } });
    let view: PointView | null = null;
    let bytes = 0;
    try {
      view = await this.#o.points.open(point);
      const buffer = Buffer.allocUnsafe(readBytes);
      for (const { disk, sizeBytes } of view.disks) {
        for (let at = 0; at < sizeBytes;) {
          for (const extent of await view.extents(disk, at, sizeBytes - at, 256)) {
            for (let done = 0; done < extent.length && !extent.isZero; done += readBytes) {
              const length = Math.min(readBytes, extent.length - done);
              await this.#o.pace(length);
              try {
                await view.read(disk, at + done, buffer.subarray(0, length));
              } catch (error) {
                await this.#corrupt(error, `point ${formatPoint(point)}`, span, disk);
              }
              bytes += length;
            }
            at += extent.length;
          }
        }
      }
    } catch (error) {
      await this.#corrupt(error, `point ${formatPoint(point)}`, span, null);
    } finally {
      await view?.release();
    }
    return { point: formatPoint(point), bytes };
  }

  /** When an index is damaged, too, nothing better is known than that all older points may be touched. */
  async #spanOrAll(files: readonly HistoryFile[], index: number, place: DamagedPlace): Promise<PointSpan> {
    const { disk, folder } = this.#o;
    try {
      return await spanOf(disk, folder, files, index, place);
    } catch (error) {
      if (!isFault(error, 'STORE_CORRUPT')) throw error;
      return spanOf(disk, folder, files, index, null);
    }
  }

  async #corrupt(error: unknown, path: string, span: () => Promise<PointSpan>, disk: number | null): Promise<void> {
    // A disk that cannot read a sector has lost it as much as one that reads it wrongly.
    if (!isFault(error, 'STORE_CORRUPT') && errorCode(error) !== 'EIO') throw error;
    this.#foundCount++;
    if (this.#found.length >= findingsMax) return;
    const facts = isFault(error) ? error.facts : {};
    this.#found.push({
      path: typeof facts['path'] === 'string' ? facts['path'] : path, offset: typeof facts['offset'] === 'number' ? facts['offset'] : 0,
      detail: (error as Error).message, disk, span: await span(),
    });
  }
}

/** Points after `newest` up to the next boundary of the history: they need the journal's records. */
function journalSpan(files: readonly HistoryFile[], newest: PointId | null): PointSpan {
  const from = newest === null ? { term: 0, point: 1 } : { term: newest.term, point: newest.point + 1 };
  return { from, before: files.find(({ to }) => comparePoints(to, from) >= 0)?.to ?? null };
}
