/** The record: golden bytes, FORMAT.md's own examples, and what is refused by which name. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import * as limits from '../../journal/limits.ts';
import { makeRecord, readRecord, readRecordSize, sealRecordBytes, type RecordHeader } from '../../journal/record.ts';
import { decodePayload, encodePayload, openPayload, partPayload, sealPayload } from '../../journal/seal.ts';

const format = await readFile(join(import.meta.dirname, '..', '..', 'journal', 'FORMAT.md'), 'utf8');
const head = { codec: 'none', groupId: '00112233445566778899aabbccddeeff', deltaId: 0x0123456789abcdefn, point: 7, term: 2, disk: 0, offset: 0, length: 0 } as const;

const examples = {
  zero: makeRecord({ ...head, kind: 'zero', disk: 1, sequence: 3, offset: 65536, length: 4096 }),
  open: makeRecord({ ...head, kind: 'open', sequence: 0 }, encodePayload({ base: { term: 2, point: 6 } })),
};

function dump(bytes: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) lines.push(`${at.toString(16).padStart(4, '0')}  ${bytes.toString('hex', at, Math.min(bytes.length, at + 16)).replaceAll(/..(?=.)/g, '$& ')}`);
  return lines.join('\n');
}

for (const [name, { bytes, header }] of Object.entries(examples)) {
  t.test(`FORMAT.md's example of ${name}`, async (t) => {
    t.match(format, `\`\`\`hex ${name}\n${dump(bytes)}\n\`\`\``, dump(bytes));
    const reading = readRecord(bytes);
    t.same(reading, { ok: true, record: { header, bytes }, next: bytes.length });
  });
}

t.test('golden bytes of a data record', async (t) => {
  const bytes = Buffer.alloc(80 + 512, 0);
  bytes.write('hello', 80);
  sealRecordBytes(bytes, { ...head, kind: 'data', disk: 3, sequence: 9, offset: 1024, length: 512 });
  t.equal(bytes.toString('hex', 0, 80), goldenData());
});

t.test('FORMAT.md names the limits as they are', async (t) => {
  const units: Record<string, number> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 };
  const rows = [...format.matchAll(/^\| `(\w+)` \| (\d+)(?: (\w+))?(?: \+ (\d+))? \|$/gm)];
  t.ok(rows.length >= 10);
  for (const [, name, number, unit, more] of rows) {
    t.equal(limits[name as keyof typeof limits], Number(number) * (unit === undefined ? 1 : units[unit]!) + Number(more ?? 0), name!);
  }
});

t.test('what is refused, and as what', async (t) => {
  const fault = (change: Partial<Omit<RecordHeader, 'payloadBytes'>>, payload?: Buffer) => {
    const reading = readRecord(makeRecord({ ...head, kind: 'zero', sequence: 1, length: 512, ...change }, payload).bytes);
    return reading.ok ? 'taken' : reading.fault;
  };
  t.equal(fault({}), 'taken');
  t.equal(fault({ offset: 100 }), 'bounds', 'not on a sector');
  t.equal(fault({ length: 0 }), 'bounds', 'a zero run of nothing');
  t.equal(fault({ length: limits.zeroRunBytesMax + 512 }), 'bounds');
  t.equal(fault({ disk: limits.diskCountMax }), 'bounds');
  t.equal(fault({}, Buffer.alloc(1)), 'bounds', 'zero with a payload');
  t.equal(fault({ codec: 'snappy' }), 'bounds', 'compressed zeroes');
  t.equal(fault({ kind: 'data' }, Buffer.alloc(511)), 'bounds', 'less than the run');
  t.equal(fault({ kind: 'data', codec: 'snappy' }, Buffer.alloc(512)), 'bounds', 'compressed to no less');
  t.equal(fault({ kind: 'data', codec: 'snappy' }, Buffer.alloc(511)), 'taken');
  t.equal(fault({ kind: 'data', length: limits.runBytesMax + 512 }, Buffer.alloc(10)), 'bounds');
  t.equal(fault({ kind: 'seal' }, Buffer.from('{}')), 'bounds', 'a seal with a run');
  t.equal(fault({ kind: 'seal', length: 0 }, Buffer.alloc(limits.sealPayloadBytesMax + 1)), 'bounds');
  const altered = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(examples.zero.bytes);
    change(bytes);
    const reading = readRecord(bytes);
    return reading.ok ? 'taken' : reading.fault;
  };
  t.equal(altered((bytes) => bytes.fill(0)), 'blank');
  t.equal(altered((bytes) => { bytes[8] = 0; }), 'magic');
  t.equal(altered((bytes) => { bytes[20]! ^= 1; }), 'checksum');
  t.equal(altered((bytes) => bytes.writeUInt32LE(0xffffffff, 68)), 'bounds', 'a length that nobody allocates');
  const cut = readRecord(examples.open.bytes.subarray(0, 90));
  t.equal(cut.ok ? 'taken' : cut.fault, 'truncated');
  const none = readRecordSize(Buffer.alloc(79));
  t.equal(none.ok ? 'taken' : none.fault, 'truncated');
});

t.test('payloads of another shape are no payloads', async (t) => {
  t.equal(decodePayload(openPayload, Buffer.from('{"base":')), undefined);
  t.equal(decodePayload(openPayload, Buffer.from('{"base":{"term":-1,"point":2}}')), undefined);
  t.equal(decodePayload(partPayload, Buffer.from('{"part":0}')), undefined);
  t.equal(decodePayload(sealPayload, Buffer.from('{"part":1}')), undefined);
  t.same(decodePayload(partPayload, encodePayload({ part: 4 })), { part: 4 });
});

/** Written down once: a change of these bytes is a new format. */
function goldenData(): string {
  return '61ecd881e5265473414952310200030000112233445566778899aabbccddeeffefcdab896745230107000000000000000004000000000000020000000900000000020000000200000000000000000000';
}
