/** What comes over the wire: control messages of both sides, records as a connection takes them, pairing tokens. */
import { compressSync } from 'snappy';
import { xxh64 } from '@node-rs/xxhash';
import { fingerprintOf, makeCertificate, makeToken, readToken } from '../../journal/identity.ts';
import { controlBytesMax, recordHeaderBytes } from '../../journal/limits.ts';
import { makeRecord, readRecord, recordMagic, type RecordHeader } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { decodeMessage, sourceMessage, targetMessage, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import type { GroupFacts } from '../../replica-target/store/group-facts.ts';
import { deltaRecordFault } from '../../replica-target/store/record-admission-plan.ts';
import { emptyChain, follow } from '../../replica-target/store/record-order-plan.ts';
import { runBytes } from '../../replica-target/store/record-payload.ts';
import type { Dice } from '../sim/dice.ts';
import type { Decoder } from './decoder.ts';
import { reshapeJson } from './reshape-json.ts';

export const groupId = 'aa'.repeat(16);
const sourceId = '11'.repeat(16);
const nonce = '05'.repeat(32);

const sourceSays: readonly SourceMessage[] = [
  { t: 'hello', versions: [1], sourceId, sourceName: 'source', nonce },
  { t: 'auth', mac: nonce },
  { t: 'announce', group: groupId, name: 'web1', term: 1, rpoMs: 1000, disks: [{ disk: 0, name: 'vda', sizeBytes: 1024 ** 2 }], hardware: { version: 1, devices: [{ driver: 'virtio' }] } },
  { t: 'seedBegin', group: groupId, deltaId: '01'.repeat(8) },
  { t: 'compare', group: groupId, id: 1, disk: 0, offset: 0, length: 65_536, blockBytes: 65_536, hashes: Buffer.alloc(32, 7).toString('base64') },
  { t: 'yielded', group: groupId, id: '02'.repeat(8), point: { term: 1, point: 7 }, stoppedAtMs: 1 },
  { t: 'kept', group: groupId, id: '02'.repeat(8), code: 'GUEST_KEEPS_RUNNING', message: 'it runs' },
  { t: 'handedOver', group: groupId, term: 2, sourceId },
];
const targetSays: readonly TargetMessage[] = [
  { t: 'challenge', version: 1, targetId: sourceId, targetName: 'target', nonce },
  { t: 'welcome', mac: nonce, creditBytes: 1024 },
  { t: 'group', group: groupId, term: 1, newest: { term: 1, point: 4 }, applied: null, open: { point: 5, deltaId: '03'.repeat(8), nextSequence: 7, parts: 1 }, seed: 'partial', images: { term: 1, point: 2 } },
  { t: 'ack', group: groupId, term: 1, point: 4, part: 1 },
  { t: 'differs', group: groupId, id: 1, bits: '0101' },
  { t: 'held', group: groupId, code: 'STORE_FULL', message: 'full' },
  { t: 'yield', group: groupId, id: '02'.repeat(8), shutdownMs: 60_000, onLimit: 'stop' },
  { t: 'takeOver', group: groupId, id: '02'.repeat(8), term: 2, sourceId },
  { t: 'refused', code: 'TERM_OLD', message: 'older', group: groupId, term: 2 },
];

/** What the target keeps of an announcement is read again at its next start: it must be JSON of a size that it reads. */
function messages(name: string, schema: typeof sourceMessage | typeof targetMessage, says: readonly object[]): Decoder {
  return {
    name, faults: [], isText: true, inputBytesMax: 256 * 1024, bufferBytesMax: () => 1024 ** 2,
    words: ['\\u0000', '\\ud800', '"t":', '1e999', '-0', '__proto__', groupId],
    seeds: () => says.map((message) => Buffer.from(JSON.stringify(message))),
    decode(input) {
      const message = decodeMessage<object>(schema, input.toString('utf8'));
      // Whatever was taken is passed on, noted and logged as JSON.
      if (message !== undefined && JSON.stringify(message).length > 4 * controlBytesMax) throw new Error('what was taken became much larger than what came');
    },
  };
}

const facts: GroupFacts = {
  version: 1, incompatible: [], groupId, name: 'web1', sourceId, formerSourceIds: [], term: 1, fencedBelow: 1, state: 'protected', seed: 'done', reclaimed: null, seedDeltaId: null,
  isSeedDistrusted: false, rpoMs: 1000, createdAtMs: 1, disks: [{ disk: 0, name: 'vda', sizeBytes: 16 * 1024 ** 2 }], hardware: {},
};

function record(kind: RecordHeader['kind'], sequence: number, payload?: Buffer, header: Partial<RecordHeader> = {}): Buffer {
  return makeRecord({ kind, codec: 'none', groupId, deltaId: 1n, point: 1, term: 1, sequence, disk: 0, offset: 0, length: 0, ...header }, payload).bytes;
}

/** A delta of every kind of record. */
export function deltaRecords(): Buffer[] {
  const run = Buffer.alloc(4096, 'afterimage');
  return [
    record('open', 0, encodePayload({ base: null })),
    record('data', 1, run, { length: 4096 }),
    record('data', 2, compressSync(run), { length: 4096, codec: 'snappy', offset: 8192 }),
    record('zero', 3, undefined, { length: 65_536, offset: 65_536 }),
    record('part', 4, encodePayload({ part: 1 })),
    record('seal', 5, encodePayload({ base: null, kind: 'mark', cutAtMs: 1_790_000_000_000, records: 6, changedBytes: 73_728, disks: [{ disk: 0, sizeBytes: 16 * 1024 ** 2 }], label: 'before', frozenMs: 12 })),
  ];
}

/** Magic, payload's length and checksum of each record as it now lies there. */
export function mendRecords(bytes: Buffer, from = 0): void {
  for (let at = from; at + recordHeaderBytes <= bytes.length;) {
    bytes.writeUInt32LE(recordMagic, at + 8);
    const left = bytes.length - at - recordHeaderBytes;
    if (bytes.readUInt32LE(at + 68) > left) bytes.writeUInt32LE(left, at + 68);
    const end = at + recordHeaderBytes + bytes.readUInt32LE(at + 68);
    bytes.writeBigUInt64LE(xxh64(bytes.subarray(at + 8, end)), at);
    at = end;
  }
}

/** Another payload for one of the records that have JSON. */
export function reshapeRecords(input: Buffer, dice: Dice): Buffer | null {
  const pieces: Buffer[] = [];
  const framed: number[] = [];
  for (let at = 0; at < input.length;) {
    const reading = readRecord(input, at);
    if (!reading.ok) break;
    const { kind } = reading.record.header;
    if (kind === 'open' || kind === 'part' || kind === 'seal') framed.push(pieces.length);
    pieces.push(reading.record.bytes);
    at = reading.next;
  }
  if (framed.length === 0) return null;
  const chosen = dice.pick(framed);
  const payload = reshapeJson(pieces[chosen]!.toString('utf8', recordHeaderBytes), dice);
  if (payload === null) return null;
  const changed = Buffer.concat([pieces[chosen]!.subarray(0, recordHeaderBytes), Buffer.from(payload)]);
  changed.writeUInt32LE(changed.length - recordHeaderBytes, 68);
  pieces[chosen] = changed;
  const whole = Buffer.concat(pieces);
  mendRecords(whole);
  return whole;
}

const records: Decoder = {
  name: 'records', faults: ['RECORD_CORRUPT', 'RECORD_MISPLACED', 'DELTA_BASE', 'TERM_OLD'], inputBytesMax: 256 * 1024,
  // Unpacked runs; parsed payloads are text.
  bufferBytesMax: (inputBytes) => 1024 ** 2 + 32 * inputBytes,
  seeds: () => [Buffer.concat(deltaRecords()), Buffer.concat(deltaRecords().slice(0, 3))],
  reshape: reshapeRecords,
  mend: mendRecords,
  async decode(input) {
    let chain = emptyChain;
    for (let at = 0; at < input.length;) {
      const reading = readRecord(input, at);
      if (!reading.ok) return;
      const { record: taken, next } = reading;
      const fault = deltaRecordFault(facts, taken);
      if (fault !== null) throw fault;
      const following = follow(chain, groupId, taken);
      if (!following.ok) return;
      if (following.event === 'seal') shown(following.seal);
      if (taken.header.kind === 'data') await runBytes(taken.header, taken.bytes);
      chain = following.chain;
      at = next;
    }
  },
};

/** Times of a point are shown to people wherever points are listed. */
function shown(seal: { readonly cutAtMs: number }): string {
  return new Date(seal.cutAtMs).toISOString();
}

const token: Decoder = {
  name: 'token', faults: ['PAIRING_TOKEN'], isText: true, inputBytesMax: 8192, bufferBytesMax: () => 64 * 1024,
  async seeds() {
    const { cert } = await makeCertificate('target');
    return [Buffer.from(makeToken({ host: 'bravo', port: 7228, fingerprint: fingerprintOf(cert), secret: Buffer.alloc(32, 5), targetId: sourceId, targetName: 'bravo' }))];
  },
  reshape(input, dice) {
    const text = reshapeJson(Buffer.from(input.toString('latin1'), 'base64url').toString('utf8'), dice);
    return text === null ? null : Buffer.from(Buffer.from(text).toString('base64url'));
  },
  decode: (input) => { readToken(input.toString('utf8')); },
};

export const wireDecoders: readonly Decoder[] = [
  messages('source-messages', sourceMessage, sourceSays), messages('target-messages', targetMessage, targetSays), records, token,
];
