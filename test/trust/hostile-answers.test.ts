/** Answers of another shape than is taken for granted, from a QEMU, a guest's agent, a witness, a source: each is a named fault of that peer, never the end of the daemon. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { JobWatch } from '../../daemon/capture/job-watch.ts';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { controlBytesMax, hardwareDepthMax } from '../../journal/limits.ts';
import { decodeMessage, sourceMessage } from '../../journal/wire.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import { takeDiskInventory } from '../../qemu/guest-disks.ts';
import { recordHardware } from '../../qemu/hardware.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { FakeAgent } from '../freeze/fake-agent.ts';
import { announcement } from '../ingest/loopback.ts';
import { startPeer } from '../qemu/nbd-peers.ts';

/** No text can be made of the one, nor of the other as JSON: it is deeper than the stack. */
const noText = '{"toString": 0, "valueOf": 0}';
const deep = '['.repeat(100_000) + ']'.repeat(100_000);

/** A QEMU that answers each command with what `answer` says. */
async function qemu(t: Test, answer: (command: string) => string): Promise<QmpConnection> {
  const path = await startPeer(t, (socket) => {
    socket.write('{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 7}}}}\n');
    let held = '';
    socket.on('data', (chunk: Buffer) => {
      held += chunk.toString();
      for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
        const { execute, id } = JSON.parse(held.slice(0, end)) as { execute: string; id: number };
        held = held.slice(end + 1);
        socket.write(`${(execute === 'qmp_capabilities' ? '{"return": {}, "id": @}' : answer(execute)).replaceAll('@', String(id))}\n`);
      }
    });
  });
  const client = await connectQmp(path);
  t.teardown(() => client.close());
  return client;
}

for (const [what, value] of [['an object', noText], ['a deep list', deep]] as const) {
  t.test(`a QEMU whose error is ${what}`, async (t) => {
    const client = await qemu(t, () => `{"error": {"class": ${value}, "desc": ${value}}, "id": @}`);
    await t.rejects(client.execute('query-status'), { code: 'QMP_COMMAND' });
    const other = await qemu(t, () => `{"error": {"class": "x", "desc": ${value}}, "id": ${value}}`);
    await t.rejects(other.execute('query-status'), { code: 'QMP_CLOSED' });
    t.match(await other.closed, { code: 'QMP_GARBAGE' });
  });

  t.test(`a QEMU whose events name ${what}`, async (t) => {
    const client = await qemu(t, () => `{"event": "JOB_STATUS_CHANGE", "data": {"id": ${value}, "status": ${value}}}\n{"event": "QUORUM_REPORT_BAD", "data": {"node-name": ${value}}}\n{"return": {"status": "running"}, "id": @}`);
    const watch = new JobWatch(client, nodeClock);
    t.same(await client.execute('query-status'), { status: 'running' }, 'the events were taken, the connection stays');
    t.same(watch.breaks('afterimage-'), []);
  });
}

t.test('a QEMU whose disks, nodes and machine are no such thing', async (t) => {
  for (const value of ['null', '7', '[null]', '[{"device": 7}]', '{"nodes": 1}', `[${noText}]`]) {
    const client = await qemu(t, () => `{"return": ${value}, "id": @}`);
    await t.rejects(takeDiskInventory(client), { code: /^QMP_(GARBAGE|CLOSED)$/ }, `disks that are ${value}`);
    t.match(await client.closed, { code: 'QMP_GARBAGE' }, 'and it is not listened to any further');
    await t.rejects(recordHardware(await qemu(t, () => `{"return": ${value}, "id": @}`)), { code: /^QMP_/ });
  }
});

t.test('a guest whose agent answers what no agent answers', async (t) => {
  const answered = async (reply: string) => {
    const fake = await FakeAgent.start(t);
    const agent = await connectGuestAgent(fake.path);
    t.teardown(() => agent.close());
    await agent.ping();
    fake.reply = () => Buffer.from(`${reply}\n`);
    return agent;
  };
  for (const value of [noText, '[[[]]]', 'null']) {
    await t.rejects((await answered(`{"error": {"class": ${value}, "desc": ${value}}}`)).freeze(5000), { code: 'AGENT_REFUSED' }, `an error that is ${value}`);
    await t.rejects((await answered(`{"return": ${value}}`)).freezeStatus(), { code: 'AGENT_GARBAGE' });
  }
  await t.rejects((await answered(`{"return": ${deep}}`)).freezeStatus(), { code: 'AGENT_GARBAGE' }, 'deeper than the stack');
  t.same(await (await answered('{"return": {"version": 3, "supported_commands": [null, 7, {"name": "a", "enabled": true}]}}')).info(), { version: 'unknown', commands: new Set(['a']) });
});

t.test('a witness that is none', async (t) => {
  for (const body of ['{"kvs": 7}', '[]', '{"kvs": [{"key": 1}]}', `{"kvs": ${deep}}`, `{"succeeded": ${deep}}`]) {
    const server = createServer((_request, response) => response.end(body));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const witness = await etcdWitness({ endpoints: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`], prefix: '/t/', answerMsMax: 5000 });
    await t.rejects(witness.look('aa'.repeat(16)).then((view) => witness.put('aa'.repeat(16), null, view, true)), { code: 'WITNESS_UNREACHABLE' }, body.slice(0, 40));
    witness.close();
    server.closeAllConnections();
    await new Promise((resolve) => { server.close(resolve); });
  }
});

t.test('hardware that could be taken and never be read again is not taken', async (t) => {
  const announced = (hardware: string) => decodeMessage(sourceMessage, JSON.stringify({ t: 'announce', ...announcement() }).replace('"hardware":{}', () => `"hardware":${hardware}`));
  t.ok(announced('{"a":[{"b":1}]}'));
  t.ok(announced(`{"a":${'['.repeat(hardwareDepthMax - 1)}${']'.repeat(hardwareDepthMax - 1)}}`));
  t.equal(announced(`{"a":${'['.repeat(hardwareDepthMax + 1)}${']'.repeat(hardwareDepthMax + 1)}}`), undefined, 'too deep');
  t.equal(announced(`{"a":${deep}}`), undefined, 'deeper than the stack');
  // Four characters each, of which 21 are made.
  const swollen = `{"a":[${Array.from({ length: 300_000 }, () => '1e20').join(',')}]}`;
  t.ok(swollen.length < controlBytesMax);
  t.equal(announced(swollen), undefined, 'with numbers that take more room than they came in');
});
