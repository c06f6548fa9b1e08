/**
 * How the audit trail lies on the disk, and reading it with every hash checked (journal/FORMAT.md, "Audit trail"). Reading changes nothing and needs no daemon: whoever has the folder, or a
 * copy of it, can tell whether it is whole.
 *
 * A line is `HASH JSON`, HASH being SHA-256, in hex, of the hash of the line before (64 zeroes before the first), a line feed, and JSON as it stands. `head` is `NUMBER HASH` of the newest.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import type { Disk } from './disk.ts';

/** `local`: over the control socket. `token`: an operator token of the API. `source`: a peer. `itself`: the daemon, by what it was told earlier. */
export type Actor =
  | { readonly kind: 'local'; readonly uid: number }
  | { readonly kind: 'token'; readonly name: string }
  | { readonly kind: 'source'; readonly sourceId: string }
  | { readonly kind: 'itself' };

const actor = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('local'), uid: z.number() }), z.object({ kind: z.literal('token'), name: z.string() }),
  z.object({ kind: z.literal('source'), sourceId: z.string() }), z.object({ kind: z.literal('itself') }),
]);
const entryShape = z.object({
  n: z.number().int().positive(), atMs: z.number(), who: actor, act: z.string(), on: z.string().nullable(), what: z.record(z.string(), z.unknown()), outcome: z.string(),
});

export interface AuditEntry {
  /** From 1, without gaps. */
  readonly n: number;
  /** Wall clock, ms. */
  readonly atMs: number;
  readonly who: Actor;
  readonly act: string;
  /** A group, a guest, a target, …; null: the daemon as a whole. */
  readonly on: string | null;
  readonly what: Readonly<Record<string, unknown>>;
  /** `done`, `begun` (of what takes long; another entry says how it ended), or the code of the fault. */
  readonly outcome: string;
}

/** Number and hash of an entry; 0 and zeroes: of none. */
export interface AuditHead { readonly n: number; readonly hash: string }

export interface TrailReading {
  readonly entryCount: number;
  /** Of the last line. */
  readonly last: AuditHead;
  /** As the second file says; null: there is none. */
  readonly head: AuditHead | null;
  /** The first place that is not as it was written. `line` from 1. */
  readonly broken: { readonly line: number; readonly why: string } | null;
  /** Of an entry that a crash left unfinished behind the last whole line: no damage, as it was never said to be durable. */
  readonly tornBytes: number;
  readonly endOfWhole: number;
}

/** In a role's data folder. */
export function auditFolder(dataFolder: string): string { return join(dataFolder, 'audit'); }

export const noHead: AuditHead = { n: 0, hash: '0'.repeat(64) };

/** An entry is a line; `what` gives way when it is longer than this, bytes. */
const entryBytesMax = 16 * 1024;
const chunkBytes = 256 * 1024;
const lineShape = /^([0-9a-f]{64}) (\{.*\})$/s;

export function hashOf(before: string, text: string): string {
  return createHash('sha256').update(before).update('\n').update(text).digest('hex');
}

/** JSON, its members in this order, in one line. */
export function encodeEntry({ n, atMs, who, act, on, what, outcome }: AuditEntry): string {
  const text = JSON.stringify({ n, atMs, who, act, on, what, outcome }, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
  return Buffer.byteLength(text) <= entryBytesMax ? text : JSON.stringify({ n, atMs, who, act, on: on?.slice(0, 1000) ?? null, what: { leftOff: Buffer.byteLength(text) }, outcome });
}

/** `kept`: a head that was kept elsewhere, which must be in the trail. Rejects with the system's error. */
export async function readTrail(disk: Disk, folder: string, onEntry: (entry: AuditEntry) => void = () => undefined, kept: AuditHead | null = null): Promise<TrailReading> {
  // The head first: of a trail that is being written, it is never ahead then.
  const head = readHead(await readSmall(disk, join(folder, 'head')));
  const checker = new Checker(head === 'damaged' ? null : head, kept, onEntry);
  const left = await eachLine(disk, join(folder, 'trail'), (line, end) => checker.take(line, end));
  return checker.end(left, head === 'damaged');
}

class Checker {
  readonly #head: AuditHead | null;
  readonly #kept: AuditHead | null;
  readonly #onEntry: (entry: AuditEntry) => void;
  #lines = 0;
  /** The last line up to which all is as it was written, and where it ends. */
  #good = { ...noHead, end: 0 };
  /** The last line that is an entry at all. */
  #last = noHead;
  #end = 0;
  #bad: TrailReading['broken'] = null;

  constructor(head: AuditHead | null, kept: AuditHead | null, onEntry: (entry: AuditEntry) => void) {
    this.#head = head;
    this.#kept = kept;
    this.#onEntry = onEntry;
  }

  take(line: string, end: number): void {
    this.#lines += 1;
    this.#end = end;
    const found = lineShape.exec(line);
    const entry = found === null ? null : parseEntry(found[2]!);
    const why = found === null || entry === null ? `line ${this.#lines} is no entry` : this.#fault(entry, found[1]!, found[2]!);
    if (why !== null) this.#bad ??= { line: this.#lines, why };
    if (found === null || entry === null) return;
    this.#last = { n: entry.n, hash: found[1]! };
    if (this.#bad === null) this.#good = { ...this.#last, end };
    this.#onEntry(entry);
  }

  /** Null: it follows the one before, and is the one that was noted or kept under its number. */
  #fault(entry: AuditEntry, hash: string, text: string): string | null {
    const due = this.#last.n + 1;
    if (entry.n !== due) return `entry ${entry.n} stands where entry ${due} should`;
    if (hashOf(this.#last.hash, text) !== hash) return `entry ${due} was changed, or what stands before it was`;
    if (this.#head?.n === due && this.#head.hash !== hash) return `entry ${due} is not the one that was noted as the newest`;
    return this.#kept?.n === due && this.#kept.hash !== hash ? `entry ${due} is not the one whose hash was kept` : null;
  }

  end(leftBytes: number, isHeadDamaged: boolean): TrailReading {
    const [noted, kept] = [this.#head?.n ?? 0, this.#kept?.n ?? 0];
    // What stands behind the newest entry that was said to be durable, and is none, a crash left.
    const isTorn = this.#bad !== null && !isHeadDamaged && this.#good.n >= Math.max(noted, kept) && (this.#head !== null || this.#bad.line === 1);
    const tornBytes = leftBytes + (isTorn ? this.#end - this.#good.end : 0);
    const last: AuditHead = isTorn ? { n: this.#good.n, hash: this.#good.hash } : this.#last;
    let broken = isTorn ? null : this.#bad;
    if (Math.max(noted, kept) > last.n) broken ??= { line: this.#lines + 1, why: `entries ${last.n + 1} to ${Math.max(noted, kept)} are missing at the end` };
    if (isHeadDamaged || (this.#head === null && last.n > 1)) broken ??= { line: this.#lines, why: `the note of the newest entry is ${isHeadDamaged ? 'damaged' : 'gone'}` };
    return { entryCount: this.#lines, last, head: this.#head, broken, tornBytes, endOfWhole: isTorn ? this.#good.end : this.#end };
  }
}

function parseEntry(text: string): AuditEntry | null {
  try {
    return entryShape.safeParse(JSON.parse(text)).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function readHead(text: string | null): AuditHead | null | 'damaged' {
  if (text === null) return null;
  const found = /^(\d{1,15}) ([0-9a-f]{64})\n$/.exec(text);
  return found === null ? 'damaged' : { n: Number(found[1]), hash: found[2]! };
}

async function readSmall(disk: Disk, path: string): Promise<string | null> {
  let text: string | null = null;
  await withFile(disk, path, async (file) => {
    const bytes = Buffer.alloc(256);
    text = bytes.toString('latin1', 0, await file.read(bytes, 0, bytes.length, 0));
  });
  return text;
}

/** Calls with each line that ends, and where it does. Resolves with how many bytes are behind the last. */
async function eachLine(disk: Disk, path: string, take: (line: string, end: number) => void): Promise<number> {
  let left: Buffer = Buffer.alloc(0);
  await withFile(disk, path, async (file) => {
    const sizeBytes = await file.sizeBytes();
    for (let at = 0; at < sizeBytes;) {
      const chunk = Buffer.alloc(Math.min(chunkBytes, sizeBytes - at));
      const read = await file.read(chunk, 0, chunk.length, at);
      if (read === 0) break;
      at += read;
      left = Buffer.concat([left, chunk.subarray(0, read)]);
      for (let end = left.indexOf(0x0a); end >= 0; end = left.indexOf(0x0a)) {
        take(left.toString('utf8', 0, end), at - left.length + end + 1);
        left = left.subarray(end + 1);
      }
      // No line is that long: it is handed on in pieces, each of which is no entry.
      if (left.length > 4 * entryBytesMax) {
        take('', at);
        left = Buffer.alloc(0);
      }
    }
  });
  return left.length;
}

async function withFile(disk: Disk, path: string, use: (file: Awaited<ReturnType<Disk['open']>>) => Promise<void>): Promise<void> {
  let file;
  try {
    file = await disk.open(path, 'read');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
    throw error;
  }
  try {
    await use(file);
  } finally {
    await file.close();
  }
}
