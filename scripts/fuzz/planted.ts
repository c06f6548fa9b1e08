/** Decoders with a defect each, by which the suite knows that the fuzzer finds such: it is the fuzzer that is tested by them. */
import { xxh64 } from '@node-rs/xxhash';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { readRecord } from '../../journal/record.ts';
import type { Decoder } from './decoder.ts';
import { deltaRecords, mendRecords } from './wire-decoders.ts';

/** Eight bytes of checksum, then JSON: as a header's facts lie in a file. */
function summed(text: string): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(8), Buffer.from(text)]);
  mendSum(bytes);
  return bytes;
}

function mendSum(bytes: Buffer): void {
  if (bytes.length >= 8) bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
}

const records = { inputBytesMax: 64 * 1024, seeds: () => [Buffer.concat(deltaRecords())], faults: [] } as const;
const line = { inputBytesMax: 64 * 1024, bufferBytesMax: () => 1024 ** 2, isText: true, faults: [] } as const;

const defects: Readonly<Record<string, Omit<Decoder, 'name'>>> = {
  /** Memory is taken for the payload that a header claims before anything was checked. */
  'length-believed': {
    ...records, bufferBytesMax: () => 4 * 1024 ** 2,
    decode(input) { if (input.length >= recordHeaderBytes) Buffer.alloc(input.readUInt32LE(68)).copy(input); },
  },
  /** A record's end is not looked at before it is read. */
  'bounds-unchecked': {
    ...records, mend: mendRecords, bufferBytesMax: () => 4 * 1024 ** 2,
    decode(input) { for (let at = 0; at < input.length; at += recordHeaderBytes + input.readUInt32LE(at + 68)) input.readBigUInt64LE(at); },
  },
  /** What a checksum vouches for is taken for sound JSON. */
  'checksum-trusted': {
    ...records, mend: mendSum, bufferBytesMax: () => 1024 ** 2, seeds: () => [summed('{"groupId":"aa","points":[1,2,3]}')],
    decode(input) { if (input.length >= 8 && xxh64(input.subarray(8)) === input.readBigUInt64LE(0)) JSON.parse(input.toString('utf8', 8)); },
  },
  /** A member is made text of, whatever it is. */
  'text-of-anything': {
    ...line, seeds: () => [Buffer.from('{"error":{"class":"GenericError","desc":"no"}}')],
    decode(input) {
      const value = parsed(input) as { error?: { desc?: unknown } } | null;
      if (typeof value === 'object') String(value?.error?.desc);
    },
  },
  /** A page may name itself as the next one. */
  'endless-page': {
    ...records, bufferBytesMax: () => 1024 ** 2, seeds: () => [Buffer.from([2, 4, 6, 8, 255, 255, 255, 255, 255, 255])],
    decode(input) { for (let at = input[0] ?? 255; at < 255;) at = input[at] ?? 255; },
  },
  /** A pattern that tries all ways to part a text. */
  'slow-pattern': {
    ...line, isText: false, words: ['x'.repeat(40), '1h'.repeat(20)], seeds: () => [Buffer.from('1h1h')],
    decode(input) { /^(?:(?:\d+h|[0-9h]+)+)+$/.test(input.toString('latin1')); },
  },
  /** What is thrown in a callback is nobody's. */
  'thrown-aside': {
    ...records, mend: mendRecords, bufferBytesMax: () => 4 * 1024 ** 2,
    async decode(input) {
      if (!readRecord(input).ok) setImmediate(() => { throw new TypeError('the first record is none'); });
      await new Promise((resolve) => { setImmediate(resolve); });
      await new Promise((resolve) => { setImmediate(resolve); });
    },
  },
};

function parsed(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

export const plantedNames = Object.keys(defects);

export function planted(name: string): Decoder {
  const defect = defects[name];
  if (defect === undefined) throw new Error(`no defect ${name}`);
  return { name, ...defect };
}
