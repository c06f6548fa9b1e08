/**
 * When a group's stored bytes were last checked and what was found, durably (`scrub.json`); one check at a time. What is checked
 * is verify.ts's, when it is done by itself is scrub.ts's.
 */
import { z } from 'zod';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { readChecked, replaceChecked } from '../store/checked-json.ts';
import { verifyGroup, type Verification, type VerifyParts } from './verify.ts';

const version = 1;
const count = z.number().int().nonnegative();
const finding = z.object({
  path: z.string(), offset: count, detail: z.string(), disk: count.nullable(),
  touched: z.object({ count, oldest: z.string().nullable(), newest: z.string().nullable() }),
});
const state = z.object({ version: z.literal(version), lastAtMs: count, tookMs: count, checkedBytes: count, findingCount: count, findings: z.array(finding) });

/** Findings that are kept from one start to the next. */
const keptMax = 100;

export interface ChecksReport {
  /** When the last full check ended, wall clock, ms; null: never. */
  readonly lastAtMs: number | null;
  readonly findingCount: number;
  readonly findings: Verification['findings'];
  /** Of the check that is under way; null: none is. `totalBytes`: about. */
  readonly underWay: { readonly sinceMs: number; readonly doneBytes: number; readonly totalBytes: number } | null;
}

export class GroupChecks {
  readonly #o: Omit<VerifyParts, 'pace'>;
  #last: z.infer<typeof state> | null = null;
  #underWay: { readonly sinceMs: number; doneBytes: number; readonly totalBytes: number } | null = null;
  #running: Promise<unknown> = Promise.resolve();
  readonly #stopping = new AbortController();

  constructor(parts: Omit<VerifyParts, 'pace'>) {
    this.#o = parts;
  }

  /** What was noted is for people: when it cannot be read, the next check says it anew. */
  async load(): Promise<void> {
    try {
      this.#last = await readChecked(this.#o.disk, this.#o.folder.scrub, state, version);
    } catch (error) {
      if (!isFault(error)) throw error;
    }
  }

  report(): ChecksReport {
    return {
      lastAtMs: this.#last?.lastAtMs ?? null, findingCount: this.#last?.findingCount ?? 0, findings: this.#last?.findings ?? [],
      underWay: this.#underWay === null ? null : { ...this.#underWay },
    };
  }

  /** `pace` is asked before each read. Faults: REQUEST_INVALID when a check is under way. */
  async verify(at: PointId | null, pace: (bytes: number) => Promise<void> = () => Promise.resolve()): Promise<Verification> {
    if (this.#underWay !== null) throw new Fault('REQUEST_INVALID', 'a check of this group is under way; its progress is in the status', {});
    const { clock, history, mark, replica, disk, folder } = this.#o;
    const underWay = { sinceMs: clock.nowMs(), doneBytes: 0, totalBytes: history.totalBytes };
    this.#underWay = underWay;
    const run = async (): Promise<Verification> => {
      try {
        Object.assign(underWay, { totalBytes: history.totalBytes + await replica.allocatedBytes(mark().disks.map((one) => one.disk)) });
        const verified = await verifyGroup({
          ...this.#o,
          pace: async (bytes) => {
            this.#stopping.signal.throwIfAborted();
            await pace(bytes);
            underWay.doneBytes += bytes;
          },
        }, at);
        const { startedAtMs, endedAtMs, findings, findingsLeftOff } = verified;
        this.#last = {
          version, lastAtMs: endedAtMs, tookMs: endedAtMs - startedAtMs, checkedBytes: underWay.doneBytes,
          findingCount: findings.length + findingsLeftOff, findings: findings.slice(0, keptMax).map((one) => ({ ...one })),
        };
        await replaceChecked(disk, folder.scrub, this.#last);
        return verified;
      } finally {
        this.#underWay = null;
      }
    };
    const running = run();
    this.#running = running.catch(() => undefined);
    return running;
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#stopping.abort(new Fault('REQUEST_INVALID', 'the target stops', {}));
    await this.#running;
  }
}
