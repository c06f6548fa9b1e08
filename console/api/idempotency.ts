/**
 * Acts that are asked for more than once and done once (draft-ietf-httpapi-idempotency-key-header-06): whoever is unsure whether
 * an act arrived sends it again with the same Idempotency-Key. While it is under way the retry waits for its answer, which the
 * draft would have refused with 409: a person at three in the morning wants the answer, and the act is begun once either way.
 *
 * A note that the act was begun is durable before it begins, and its answer when it has ended. Invariant: no act is begun twice
 * under one key, also across the end of the daemon; a key whose act was begun by a process that ended in the middle answers
 * OUTCOME_UNKNOWN until it is forgotten. Keys are of whoever sent them: two operators never meet in one.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault, isFault } from '../../journal/fault.ts';

/** How long a key means its act, ms, and how many there may be; then the oldest that has ended is forgotten. */
const keptMsMax = 86_400_000;
const keysMax = 1000;
/** A longer answer is not kept on disk. None of ours comes near. */
const answerCharactersMax = 1024 * 1024;

export const keyCharactersMax = 255;

/** As it goes out: `text` null with 204. */
export interface Answer { readonly status: number; readonly mediaType: string; readonly text: string | null }

export interface KeyedAct {
  /** Whose key it is. */
  readonly owner: string;
  readonly key: string;
  /** Method, path and what was sent with it: all that makes it the same request. */
  readonly request: string;
  /** Of the route, for people. */
  readonly act: string;
  /** The answer is for this process's memory alone. */
  readonly isSecret: boolean;
}

const answerShape = z.object({ status: z.number().int(), mediaType: z.string(), text: z.string().nullable() });
const noteShape = z.object({
  version: z.literal(1), id: z.string().regex(/^[0-9a-f]{64}$/), requestSha256: z.string(), act: z.string(), beganAtMs: z.number(),
  /** `answer` null with `endedAtMs`: it ended, and its answer was not kept. */
  endedAtMs: z.number().nullable(), answer: answerShape.nullable(),
});
type Note = z.infer<typeof noteShape>;

interface Known { readonly note: Note; /** Of an act of this process. */ readonly answer: Promise<Answer> | null; isEnded: boolean }

export class IdempotentActs {
  readonly #folder: string | null;
  readonly #clock: Clock;
  readonly #log: Logger;
  /** Oldest first. */
  readonly #known = new Map<string, Known>();
  #forgetting: Promise<void> = Promise.resolve();

  private constructor(folder: string | null, clock: Clock, log: Logger) {
    this.#folder = folder;
    this.#clock = clock;
    this.#log = log;
  }

  /** `folder` null: kept in memory alone. Else made when it is not there. */
  static async open(folder: string | null, clock: Clock, log: Logger): Promise<IdempotentActs> {
    const acts = new IdempotentActs(folder, clock, log);
    if (folder !== null) await acts.#read(folder);
    return acts;
  }

  /** `run` is called at most once for a key, and answers for its failures as well. Faults: KEY_REUSED, OUTCOME_UNKNOWN, REQUEST_FLOOD. */
  async once(act: KeyedAct, run: () => Promise<Answer>): Promise<{ readonly answer: Answer; readonly isReplayed: boolean }> {
    const id = sha256(`${act.owner}\0${act.key}`);
    const requestSha256 = sha256(act.request);
    await this.#forgetOld();
    const known = this.#known.get(id);
    if (known !== undefined) {
      if (known.note.requestSha256 !== '' && known.note.requestSha256 !== requestSha256) throw new Fault('KEY_REUSED', `this Idempotency-Key was used for another request (${known.note.act})`, { act: known.note.act });
      return { answer: await (known.answer ?? keptAnswer(known.note)), isReplayed: true };
    }
    if (this.#known.size >= keysMax) throw new Fault('REQUEST_FLOOD', `${keysMax} acts with an Idempotency-Key are under way`, { keysMax });
    const note: Note = { version: 1, id, requestSha256, act: act.act, beganAtMs: this.#clock.nowMs(), endedAtMs: null, answer: null };
    // Known before the first await: a second request that comes meanwhile waits for this one.
    const entry: Known = { note, isEnded: false, answer: this.#perform(note, act.isSecret, run, () => { entry.isEnded = true; }) };
    this.#known.set(id, entry);
    return { answer: await entry.answer!, isReplayed: false };
  }

  async #perform(note: Note, isSecret: boolean, run: () => Promise<Answer>, ended: () => void): Promise<Answer> {
    try {
      await this.#write(note);
    } catch (error) {
      // Nothing was begun, so the key is free again.
      this.#known.delete(note.id);
      throw error;
    }
    try {
      const answer = await run();
      const isKept = !isSecret && (answer.text?.length ?? 0) <= answerCharactersMax;
      await this.#write({ ...note, endedAtMs: this.#clock.nowMs(), answer: isKept ? answer : null }).catch((error: unknown) => {
        // It is done, and whoever asked must hear so; a retry after a restart hears that the outcome is unknown.
        this.#log.warn({ err: error, act: note.act }, 'the answer of an act could not be written down for retries');
      });
      return answer;
    } finally {
      ended();
    }
  }

  async #write(note: Note): Promise<void> {
    if (this.#folder !== null) await replaceJson(join(this.#folder, `${note.id}.json`), note);
  }

  /** One after the other: a key that is used again must not lose its new note to the removal of the old one. */
  #forgetOld(): Promise<void> {
    this.#forgetting = this.#forgetting.then(() => this.#forget()).catch((error: unknown) => {
      this.#log.warn({ err: error }, 'an old note of an act could not be removed');
    });
    return this.#forgetting;
  }

  async #forget(): Promise<void> {
    const oldestMs = this.#clock.nowMs() - keptMsMax;
    const surplus = this.#known.size - keysMax + 1;
    const ended = [...this.#known.values()].filter(({ isEnded }) => isEnded);
    const forgotten = ended.filter(({ note }, at) => at < surplus || note.beganAtMs < oldestMs);
    for (const { note } of forgotten) this.#known.delete(note.id);
    if (this.#folder !== null) await Promise.all(forgotten.map(({ note }) => rm(join(this.#folder!, `${note.id}.json`), { force: true })));
  }

  async #read(folder: string): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const notes: Note[] = [];
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      if (!/^[0-9a-f]{64}\.json$/.test(name)) {
        // Left aside by a process that ended while it wrote.
        if (name.endsWith('.json.new')) await rm(path, { force: true });
        continue;
      }
      try {
        const note = await readJson(path, noteShape);
        if (note !== null) notes.push(note);
      } catch (error) {
        if (!isFault(error)) throw error;
        // Its act was begun, and that is all that is left to know: no reason to refuse to start, nor to do it again.
        this.#log.warn({ err: error, path }, 'a note of an act cannot be read; its key answers that the outcome is unknown');
        notes.push({ version: 1, id: name.slice(0, 64), requestSha256: '', act: 'an act', beganAtMs: (await stat(path)).mtimeMs, endedAtMs: null, answer: null });
      }
    }
    for (const note of notes.sort((a, b) => a.beganAtMs - b.beganAtMs)) this.#known.set(note.id, { note, answer: null, isEnded: true });
    await this.#forgetOld();
  }
}

/** Of an act of an earlier process. */
function keptAnswer({ answer, act, beganAtMs, endedAtMs }: Note): Promise<Answer> {
  if (answer !== null) return Promise.resolve(answer);
  const began = new Date(beganAtMs).toISOString();
  const why = endedAtMs === null
    ? `the daemon ended in the middle of it (${act}, begun ${began})`
    : `it was done (${act}, begun ${began}), and its answer was not kept`;
  return Promise.reject(new Fault('OUTCOME_UNKNOWN', `this Idempotency-Key was used before: ${why}`, { act, beganAtMs, endedAtMs }));
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/** The header's value: a string of RFC 8941, or a bare word. Null for anything else. */
export function readKey(header: string): string | null {
  const quoted = /^"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/.exec(header.trim())?.[1]?.replaceAll(/\\(["\\])/g, '$1');
  const key = quoted ?? (/^[A-Za-z0-9._:~-]+$/.test(header.trim()) ? header.trim() : '');
  return key.length >= 1 && key.length <= keyCharactersMax ? key : null;
}
