import t from 'tap';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { readToken, sourceProof, targetProof } from '../../journal/identity.ts';
import * as limits from '../../journal/limits.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { readRecord } from '../../journal/record.ts';
import { decodePayload, sealPayload } from '../../journal/seal.ts';
import { faultTable } from '../../journal/fault.ts';
import { commonVersion, decodeMessage, protocolPath, protocolVersion, sourceMessage, targetMessage, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';

const text = readFileSync(new URL('../../journal/PROTOCOL.md', import.meta.url), 'utf8');
const block = (kind: string): string => new RegExp(`\`\`\`${kind}\n([^\`]*)\`\`\``).exec(text)![1]!.trim();

t.test('the protocol’s shapes are those of version 1', async (t) => {
  const shapes = JSON.stringify([z.toJSONSchema(sourceMessage), z.toJSONSchema(targetMessage), protocolVersion, protocolPath]);
  // A difference means that the wire changed. If that is meant: PROTOCOL.md, "Versioning", says what it takes.
  t.equal(createHash('sha256').update(shapes).digest('hex'), '2aed256b6fe1d407c3cf229752b9c66d5ab135aab580035d0c6e2e5d15628b7d');
});

t.test('the worked example of PROTOCOL.md is what the code says', async (t) => {
  const source: SourceMessage[] = [];
  const target: TargetMessage[] = [];
  const records: Buffer[] = [];
  for (const line of block('wire').split('\n')) {
    const said = line.slice(2);
    if (!said.startsWith('{')) records.push(Buffer.from(said, 'hex'));
    else if (line.startsWith('S')) source.push(decodeMessage(sourceMessage, said)!);
    else target.push(decodeMessage(targetMessage, said)!);
  }
  t.same(source.map((message) => message.t), ['hello', 'auth', 'announce']);
  t.same(target.map((message) => message.t), ['challenge', 'welcome', 'group', 'ack', 'applied']);
  const [hello, auth] = source as [Extract<SourceMessage, { t: 'hello' }>, Extract<SourceMessage, { t: 'auth' }>];
  const [challenge, welcome] = target as [Extract<TargetMessage, { t: 'challenge' }>, Extract<TargetMessage, { t: 'welcome' }>];
  const said = { secret: Buffer.alloc(32, 0x11), sourceNonce: hello.nonce, targetNonce: challenge.nonce, fingerprint: '44'.repeat(32), sourceFingerprint: challenge.certificate };
  t.equal(challenge.certificate, '55'.repeat(32));
  t.equal(welcome.paired, challenge.certificate);
  t.equal(auth.mac, sourceProof(said));
  t.equal(welcome.mac, targetProof(said));
  t.equal(welcome.creditBytes, limits.creditBytes);

  const kinds: string[] = [];
  for (let at = 0; at < records[0]!.length;) {
    const reading = readRecord(records[0]!, at);
    if (!reading.ok) throw new Error(reading.detail);
    const { header, bytes } = reading.record;
    kinds.push(`${header.kind} ${header.sequence} ${header.offset} ${header.length}`);
    t.match(header, { groupId: '0123456789abcdef0123456789abcdef', deltaId: 0x1122334455667788n, term: 1, point: 1 });
    if (header.kind === 'seal') t.match(decodePayload(sealPayload, bytes.subarray(recordHeaderBytes)), { base: null, records: 3, changedBytes: 4096 });
    at = reading.next;
  }
  t.same(kinds, ['open 0 0 0', 'zero 1 65536 4096', 'seal 2 0 0']);
  t.same(readToken(block('token')), {
    host: '192.0.2.7', port: 7421, fingerprint: '44'.repeat(32), secret: Buffer.alloc(32, 0x11), targetId: 'bb'.repeat(16), targetName: 'bravo',
  });
});

t.test('the tables of PROTOCOL.md name what there is', async (t) => {
  const [, fromSource, fromTarget] = /Source to target:([^]*)Target to source:([^]*)## Ordering/.exec(text)!;
  for (const [table, schema] of [[fromSource!, sourceMessage], [fromTarget!, targetMessage]] as const) {
    const rows = new Map([...table.matchAll(/^\| `(\w+)` \| ([^|]*) \|/gm)].filter((row) => row[1] !== 't').map((row) => [row[1]!, [...row[2]!.matchAll(/`(\w+)`/g)].map((member) => member[1]!)]));
    const shapes = new Map(schema.options.map((option) => [option.shape.t.value as string, Object.keys(option.shape).filter((member) => member !== 't')]));
    t.same([...rows.keys()].sort(), [...shapes.keys()].sort());
    for (const [kind, members] of shapes) t.same([...rows.get(kind)!].sort(), [...members].sort(), kind);
  }
  const stated = [...text.slice(text.indexOf('## Limits')).matchAll(/^\| `(\w+)` \| (\d+) \|/gm)];
  t.ok(stated.length >= 8);
  for (const [, name, value] of stated) t.equal((limits as Readonly<Record<string, unknown>>)[name!], Number(value), name!);
  const codes = [...text.matchAll(/\b(?:WIRE|RECORD|DELTA|TERM|GROUP|STORE|PAIRING)_[A-Z_]+\b/g)].map(([code]) => code);
  t.same(codes.filter((code) => !Object.hasOwn(faultTable, code)), []);
});

t.test('no text makes the decoder throw, and what it lets through is of the schema', async (t) => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (said) => {
    const message = decodeMessage(sourceMessage, said);
    return message === undefined || sourceMessage.safeParse(message).success;
  }));
  const announce = decodeMessage(sourceMessage, block('wire').split('\n')[4]!.slice(2)) as Extract<SourceMessage, { t: 'announce' }>;
  const change = (facts: object): unknown => decodeMessage(sourceMessage, JSON.stringify({ ...announce, ...facts }));
  t.ok(change({}));
  t.ok(change({ later: 'a member of a later release' }));
  for (const facts of [
    { name: '../../etc' }, { name: '-rf' }, { name: 'a'.repeat(64) }, { group: 'AB'.repeat(16) }, { term: 0 }, { term: 2 ** 32 }, { disks: [] },
    { disks: [{ disk: 0, name: 'a', sizeBytes: 511 }] }, { disks: [{ disk: 256, name: 'a', sizeBytes: 512 }] }, { disks: [{ disk: 0, name: 'a', sizeBytes: 2 ** 47 }] }, { rpoMs: -1 }, { t: 'other' },
  ]) t.equal(change(facts), undefined, String(JSON.stringify(facts)));
  t.equal(change({ hardware: { firmware: 'x'.repeat(limits.controlBytesMax) } }), undefined, 'above the limit');
});

t.test('the highest common version', async (t) => {
  t.equal(commonVersion([1, 2, 3], [1, 2]), 2, 'a newer peer');
  t.equal(commonVersion([1], [2, 1]), 1, 'an older one');
  t.equal(commonVersion([9, 7, 8], [1, 2]), null);
  t.equal(commonVersion([protocolVersion, 99]), protocolVersion);
});
