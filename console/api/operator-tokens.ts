/**
 * The tokens of operators: who may do what over the network. Of a token only its SHA-256 is kept, which suffices because a token
 * is 256 random bits and not a word that a person chose; it is shown once, when it is made. One private file
 * (host/node/json-file.ts), replaced whole.
 *
 * Invariant: whoever guesses learns nothing from how long an answer takes: the hash of what was given is compared with all that
 * are kept, each in constant time.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import { scopes, type Actor, type Scope } from './route.ts';

/** What a token begins with, so that scanners for secrets and people know it. */
export const tokenPrefix = 'afterimage_';
const tokenBytes = 32;
/** Each request is compared with all of them. */
const tokensMax = 200;
/** When a token was last used is written down no more often, ms: a power cut loses so much of it. */
const usedNoteMs = 600_000;

const entry = z.object({
  id: z.string().regex(/^[0-9a-f]{16}$/), name: safeName, scope: z.enum(scopes), sha256: z.string().regex(/^[0-9a-f]{64}$/),
  createdAtMs: z.number(), expiresAtMs: z.number().nullable(), usedAtMs: z.number().nullable(),
});
const fileShape = z.object({ version: z.literal(1), tokens: z.array(entry).max(tokensMax) });
type Entry = z.infer<typeof entry>;

export type OperatorToken = Omit<Entry, 'sha256'>;
export interface MadeToken extends OperatorToken {
  /** The secret itself; nobody can show it again. */
  readonly token: string;
}

export class OperatorTokens {
  readonly #path: string | null;
  readonly #clock: Clock;
  #entries: readonly Entry[];
  #notedMs: number;
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string | null, clock: Clock, entries: readonly Entry[]) {
    this.#path = path;
    this.#clock = clock;
    this.#entries = entries;
    this.#notedMs = clock.nowMs();
  }

  /** `path` null: kept in memory alone. Fault CONFIG_INVALID: others can read the file, or it is none of ours. */
  static async open(path: string | null, clock: Clock): Promise<OperatorTokens> {
    return new OperatorTokens(path, clock, (path === null ? null : await readJson(path, fileShape))?.tokens ?? []);
  }

  /** In order of making; those that have ended stay until they are revoked. */
  list(): readonly OperatorToken[] {
    return this.#entries.map(({ sha256: _, ...shown }) => shown);
  }

  /** Durable when it resolves. Fault REQUEST_INVALID: the name is taken, or there are too many. `forMs` null: it does not end by itself. */
  async create(name: string, scope: Scope, forMs: number | null): Promise<MadeToken> {
    const token = `${tokenPrefix}${randomBytes(tokenBytes).toString('base64url')}`;
    const createdAtMs = this.#clock.nowMs();
    const made = { id: randomBytes(8).toString('hex'), name, scope, createdAtMs, expiresAtMs: forMs === null ? null : createdAtMs + forMs, usedAtMs: null };
    await this.#change((entries) => {
      if (entries.some((one) => one.name === name)) throw new Fault('REQUEST_INVALID', `there is a token named ${name} already: revoke it first, or take another name`, { name });
      if (entries.length >= tokensMax) throw new Fault('REQUEST_INVALID', `there are ${tokensMax} tokens already: revoke some first`, { tokensMax });
      return [...entries, { ...made, sha256: hashOf(token).toString('hex') }];
    });
    return { ...made, token };
  }

  /** Refused from then on, durably, when it resolves. Fault REQUEST_INVALID: there is none. */
  async revoke(name: string): Promise<void> {
    await this.#change((entries) => {
      if (!entries.some((one) => one.name === name)) throw new Fault('REQUEST_INVALID', `there is no token named ${name}`, { name });
      return entries.filter((one) => one.name !== name);
    });
  }

  /** Null: not known here, or it has ended. */
  find(token: string): Extract<Actor, { kind: 'token' }> | null {
    const hash = hashOf(token);
    let found: Entry | null = null;
    for (const one of this.#entries) if (timingSafeEqual(hash, Buffer.from(one.sha256, 'hex'))) found = one;
    if (found === null || this.#isOver(found)) return null;
    this.#noteUse(found.id);
    return { kind: 'token', tokenId: found.id, name: found.name, scope: found.scope };
  }

  /** Whether a token that was good is still: not revoked, not over. */
  isGood(tokenId: string): boolean {
    return this.#entries.some((one) => one.id === tokenId && !this.#isOver(one));
  }

  async close(): Promise<void> {
    await this.#writing;
    if (this.#path !== null && this.#entries.some(({ usedAtMs }) => (usedAtMs ?? 0) > this.#notedMs)) await this.#write();
  }

  #isOver({ expiresAtMs }: Entry): boolean {
    return expiresAtMs !== null && expiresAtMs <= this.#clock.nowMs();
  }

  /** Changes one after the other; what could not be written is undone, so that memory never says more than the disk. */
  #change(change: (entries: readonly Entry[]) => readonly Entry[]): Promise<void> {
    const done = this.#writing.then(async () => {
      const before = this.#entries;
      this.#entries = change(before);
      try {
        await this.#write();
      } catch (error) {
        this.#entries = before;
        throw error;
      }
    });
    this.#writing = done.catch(() => undefined);
    return done;
  }

  async #write(): Promise<void> {
    this.#notedMs = this.#clock.nowMs();
    if (this.#path !== null) await replaceJson(this.#path, { version: 1, tokens: this.#entries });
  }

  #noteUse(id: string): void {
    const nowMs = this.#clock.nowMs();
    this.#entries = this.#entries.map((one) => (one.id === id ? { ...one, usedAtMs: nowMs } : one));
    if (nowMs - this.#notedMs < usedNoteMs) return;
    this.#notedMs = nowMs;
    // A disk that refuses this note refuses no request.
    void this.#change((entries) => entries).catch(() => undefined);
  }
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token, 'utf8').digest();
}
