/**
 * Fuzzes one decoder for a while: takes an input that led somewhere, changes it, gives it to the decoder, and keeps what ran code that no
 * input before it did. What it kept and where it stands is forgotten with it; a seed gives the same changes again.
 */
import { isFault } from '../../journal/fault.ts';
import { makeDice, type Dice } from '../sim/dice.ts';
import { beginCounting, endCounting } from './allocations.ts';
import type { CoverageWatch } from './coverage.ts';
import type { Decoder } from './decoder.ts';
import { mutate } from './mutate.ts';
import { reshapeJson } from './reshape-json.ts';

/** Inputs between two looks at what ran, and how long they may take together. */
const batchInputsMax = 256;
const batchMsMax = 300;
/** Inputs that are kept, beside the seeds. */
const corpusMax = 2000;
/** More processor time than any input may take, ms, twice in a row: a collection of garbage is not taken for a decoder that is slow. */
const slowMs = 1000;
/** Times that a decoder may refuse a seed, as a wait of some ms in it may have been too short. */
const seedTriesMax = 5;

export interface Crash {
  readonly decoder: string;
  readonly kind: 'error' | 'slow' | 'hang' | 'memory';
  readonly what: string;
  readonly input: Buffer;
}

export interface DecoderFigures {
  readonly decoder: string;
  readonly inputs: number;
  /** Among them, those that it took for valid. */
  readonly accepted: number;
  /** Refusals by their code. */
  readonly faults: Readonly<Record<string, number>>;
  /** Inputs that ran something new. */
  readonly kept: number;
  /** Blocks of the product that ran for it and had not run for a decoder before. */
  readonly blocks: number;
  /** Most bytes of buffers that one input made it ask for. */
  readonly bufferBytesPeak: number;
  /** Processor time of the slowest input, ms. */
  readonly msMax: number;
}

export interface FuzzRun {
  readonly seed: number;
  readonly untilMs: number;
  readonly inputsMax: number;
  readonly coverage: CoverageWatch;
  /** Told before each input is decoded, and null after it: who watches from outside knows which one it was. */
  readonly onInput: (input: Buffer | null) => void;
  /** What was thrown where nobody waited for it, since it was last asked. */
  readonly takeStray: () => unknown;
}

export async function fuzzOne(decoder: Decoder, run: FuzzRun): Promise<{ readonly figures: DecoderFigures; readonly crash: Crash | null }> {
  const dice = makeDice(run.seed);
  const tried = new Tried(decoder, run);
  const seeds = await decoder.seeds();
  const corpus: Buffer[] = seeds.map((seed) => Buffer.from(seed));
  const blocksBefore = run.coverage.blockCount;
  run.coverage.fresh();
  // The seeds themselves are valid: one that is refused would leave its decoder's inside untouched.
  let refused = 0;
  for (const seed of corpus) {
    if (tried.crash !== null) break;
    // A busy machine lets a peer's answer come late once.
    const acceptedBefore = tried.accepted;
    for (let tries = 0; tries < seedTriesMax && tried.crash === null && tried.accepted === acceptedBefore; tries++) await tried.decode(Buffer.from(seed));
    if (tried.accepted === acceptedBefore) refused += 1;
  }
  if (tried.crash === null && refused > 0) throw new Error(`${decoder.name} refuses a seed of its own: ${JSON.stringify(tried.faults)}`);
  run.coverage.fresh();
  let kept = 0;
  while (tried.crash === null && performance.now() < run.untilMs && tried.inputs < run.inputsMax) {
    const batch: Buffer[] = [];
    const batchUntilMs = Math.min(run.untilMs, performance.now() + batchMsMax);
    while (batch.length < batchInputsMax && performance.now() < batchUntilMs && tried.crash === null) {
      const input = changed(decoder, corpus, dice);
      batch.push(input);
      await tried.decode(Buffer.from(input));
    }
    if (tried.crash !== null) break;
    const fresh = run.coverage.fresh();
    if (fresh.size === 0 || corpus.length >= corpusMax) continue;
    const found = await whichRan(batch, fresh, tried, run);
    corpus.push(...found);
    kept += found.length;
  }
  const { inputs, accepted, faults, bufferBytesPeak, msMax, crash } = tried;
  return { crash, figures: { decoder: decoder.name, inputs, accepted, faults, kept, blocks: run.coverage.blockCount - blocksBefore, bufferBytesPeak, msMax: Math.round(msMax) } };
}

/** Those of a batch that ran the blocks, each block once: asked by halves, as a look costs more than a few inputs. */
async function whichRan(batch: readonly Buffer[], wanted: ReadonlySet<string>, tried: Tried, run: FuzzRun): Promise<Buffer[]> {
  // Kept for what comes after it, and nothing does.
  if (performance.now() > run.untilMs || tried.inputs >= run.inputsMax) return [];
  const { coverage } = run;
  for (const input of batch) {
    await tried.decode(Buffer.from(input));
    if (tried.crash !== null) return [];
  }
  const here = coverage.among(wanted);
  if (here.size === 0) return [];
  if (batch.length === 1) return [...batch];
  const middle = batch.length >> 1;
  const first = await whichRan(batch.slice(0, middle), here, tried, run);
  const left = new Set(here);
  if (first.length > 0) {
    for (const input of first) await tried.decode(Buffer.from(input));
    for (const block of coverage.among(here)) left.delete(block);
  }
  if (left.size === 0 || tried.crash !== null) return first;
  return [...first, ...await whichRan(batch.slice(middle), left, tried, run)];
}

function changed(decoder: Decoder, corpus: readonly Buffer[], dice: Dice): Buffer {
  // What was found last leads further more often.
  const from = dice.chance(0.3) ? corpus[Math.max(0, corpus.length - 1 - dice.integer(8))]! : dice.pick(corpus);
  const reshaped = dice.chance(0.5) ? reshape(decoder, from, dice) : null;
  let input = reshaped ?? mutate(from, dice, dice.pick(corpus), decoder.words ?? []);
  if (reshaped !== null && dice.chance(0.2)) input = mutate(reshaped, dice, from, decoder.words ?? []);
  if (input.length > decoder.inputBytesMax) input = input.subarray(0, decoder.inputBytesMax);
  const own = Buffer.from(input);
  if (dice.chance(0.9)) decoder.mend?.(own);
  return own;
}

function reshape(decoder: Decoder, input: Buffer, dice: Dice): Buffer | null {
  if (decoder.reshape !== undefined) return decoder.reshape(input, dice);
  if (decoder.isText !== true) return null;
  const text = reshapeJson(input.toString('utf8'), dice);
  return text === null ? null : Buffer.from(text);
}

class Tried {
  inputs = 0;
  accepted = 0;
  bufferBytesPeak = 0;
  msMax = 0;
  crash: Crash | null = null;
  readonly faults: Record<string, number> = {};
  readonly #decoder: Decoder;
  readonly #run: FuzzRun;

  constructor(decoder: Decoder, run: FuzzRun) {
    this.#decoder = decoder;
    this.#run = run;
  }

  async decode(input: Buffer, isAgain = false): Promise<void> {
    const { faults, name } = this.#decoder;
    const limitBytes = this.#decoder.bufferBytesMax(input.length);
    // Decoders may write into what they are given.
    const kept = Buffer.from(input);
    this.#run.onInput(input);
    const started = process.cpuUsage();
    let failure: unknown = null;
    beginCounting(limitBytes);
    try {
      await this.#decoder.decode(input);
    } catch (error) {
      failure = error;
    }
    const askedBytes = endCounting();
    // What comes between two inputs (a look at what ran takes seconds at first) is no input's time.
    this.#run.onInput(null);
    const used = process.cpuUsage(started);
    const tookMs = (used.user + used.system) / 1000;
    const stray = this.#run.takeStray();
    this.inputs += 1;
    this.bufferBytesPeak = Math.max(this.bufferBytesPeak, askedBytes);
    const bad = stray ?? (failure !== null && !(isFault(failure) && faults.includes(failure.code)) ? failure : null);
    if (bad !== null && bad !== undefined) {
      const isMemory = bad instanceof Error && bad.name === 'TooManyBytes';
      this.crash = { decoder: name, kind: isMemory ? 'memory' : 'error', what: describe(bad), input: kept };
      return;
    }
    if (tookMs > slowMs) {
      if (isAgain) this.crash = { decoder: name, kind: 'slow', what: `took ${Math.round(tookMs)} ms of processor time, twice`, input: kept };
      else return this.decode(Buffer.from(kept), true);
    }
    this.msMax = Math.max(this.msMax, tookMs);
    if (failure === null) this.accepted += 1;
    else if (isFault(failure)) this.faults[failure.code] = (this.faults[failure.code] ?? 0) + 1;
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message).split('\n').slice(0, 6).join('\n') : `something that is no error was thrown: ${typeof error}`;
}
