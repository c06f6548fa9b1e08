import t from 'tap';
import { agentLineBytesMax, AgentReplyReader, type AgentItem } from '../../qemu/agent-reply-reader.ts';
import { agentPortName, describeChannel, findAgentChannel } from '../../qemu/agent-channel.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import { FakeAgent } from '../freeze/fake-agent.ts';
import { startLabGuest } from '../support/lab-guest.ts';
import { withQmp } from '../support/guest-look.ts';
import { waitFor } from '../support/wait.ts';

function read(...chunks: (string | Buffer)[]): AgentItem[] {
  const items: AgentItem[] = [];
  const reader = new AgentReplyReader();
  for (const chunk of chunks) reader.push(Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk), (item) => items.push(item));
  return items;
}

t.test('replies come out of the stream whatever its pieces, and a sentinel voids what was begun', async (t) => {
  const bytes = Buffer.concat([Buffer.from('{"return":1}\n{"half"'), Buffer.of(0xff), Buffer.from('{"return": {"ü": 2}}\r\n\nnonsense\n')]);
  const expected = [{ kind: 'reply', reply: { return: 1 } }, { kind: 'sentinel' }, { kind: 'reply', reply: { return: { ü: 2 } } }, { kind: 'garbage', text: 'nonsense' }];
  t.strictSame(read(bytes), expected);
  t.strictSame(read(...[...bytes].map((byte) => Buffer.of(byte))), expected, 'byte by byte');
  t.match(read('[1]\n', '7\n'), [{ kind: 'garbage' }, { kind: 'garbage' }]);
  const long = read('x'.repeat(agentLineBytesMax), 'yy', 'z'.repeat(agentLineBytesMax * 2), '\n{"return":3}\n');
  t.match(long, [{ kind: 'garbage', text: /^x{100}$/ }, { kind: 'reply', reply: { return: 3 } }], 'too long: told once, the rest is skipped');
});

t.test('commands, refusals, and what an earlier client left in the stream', async (t) => {
  const fake = await FakeAgent.start(t);
  fake.greeting = Buffer.concat([Buffer.from('rest"}}\n{"return": "frozen"}\n'), Buffer.of(0xff), Buffer.from('{"return": 12}\n{"return": 99}\n')]);
  const agent = await connectGuestAgent(fake.path);
  t.teardown(() => agent.close());
  t.equal(await agent.freezeStatus(), 'thawed', 'not what was said before the sync');
  t.strictSame([...(await agent.info()).commands], ['guest-fsfreeze-freeze', 'guest-fsfreeze-thaw', 'guest-fsfreeze-status']);
  t.equal(await agent.freeze(1000), 2);
  await t.rejects(agent.freeze(1000), { code: 'AGENT_REFUSED', facts: { class: 'CommandNotFound' }, message: /in frozen state/ });
  t.equal(await agent.freezeStatus(), 'frozen');
  t.equal(await agent.thaw(), 2);
  t.equal(await agent.thaw(), 0);
  t.equal(fake.count('guest-sync-delimited'), 1, 'once in step, it stays in step');
  fake.reply = () => Buffer.from('{"return": "sideways"}\n');
  await t.rejects(agent.freezeStatus(), { code: 'AGENT_GARBAGE' });
  fake.reply = () => Buffer.from('no json at all\n');
  await t.rejects(agent.ping(), { code: 'AGENT_GARBAGE' });
  fake.hangUp();
  t.match(await agent.closed, { code: 'AGENT_CLOSED' });
  await t.rejects(agent.ping(), { code: 'AGENT_CLOSED' });
});

t.test('a command that is not answered in time: the next finds it in front, and its late answer is not taken', async (t) => {
  const fake = await FakeAgent.start(t);
  const agent = await connectGuestAgent(fake.path);
  t.teardown(() => agent.close());
  await agent.ping();
  let goOn!: () => void;
  fake.before = ({ execute }) => (execute === 'guest-fsfreeze-freeze' ? new Promise<void>((resolve) => { goOn = resolve; }) : undefined);
  await t.rejects(agent.freeze(50), { code: 'AGENT_SILENT' });
  const thawing = agent.thaw(20_000);
  await waitFor(() => goOn !== undefined, { limitMs: 5000, what: 'the freeze to arrive' });
  goOn();
  t.equal(await thawing, 2, 'the thaw came behind the freeze, and its own count is taken for its answer');
  t.notOk(fake.isFrozen);
  t.equal(await agent.freezeStatus(), 'thawed');

  fake.before = () => new Promise<void>(() => undefined);
  const given = agent.ping(20_000);
  agent.giveUp();
  await t.rejects(given, { code: 'AGENT_SILENT' });
});

t.test('a socket that is not there, or at which nobody listens', async (t) => {
  const fake = await FakeAgent.start(t);
  await t.rejects(connectGuestAgent(`${fake.folder}/none`), { code: 'AGENT_UNREACHABLE', facts: { error: 'ENOENT' } });
});

t.test('where a real QEMU has its agent', { timeout: 60_000 }, async (t) => {
  const guest = await startLabGuest(t, { disks: [], hasAgent: true });
  const find = () => withQmp(guest.ownQmpPath, findAgentChannel);
  t.match(await find(), { kind: 'free', path: guest.agentPath });
  const agent = await connectGuestAgent(guest.agentPath);
  t.teardown(() => agent.close());
  await guest.waitForLine(/^AF AGENT /, 30_000);
  await agent.ping(20_000);
  t.match((await agent.info()).version, /^\d+\.\d+/);
  t.equal(await agent.freezeStatus(), 'thawed');
  t.match(await find(), { kind: 'taken', path: guest.agentPath });

  const without = await startLabGuest(t, { disks: [] });
  t.match(await withQmp(without.ownQmpPath, findAgentChannel), { kind: 'none', why: new RegExp(agentPortName.replaceAll('.', '\\.')) });
  const chardev = (filename: string) => describeChannel({ label: 'c', filename, 'frontend-open': true });
  t.match(chardev('disconnected:unix:/a,b/c,server=on'), { kind: 'free', path: '/a,b/c' });
  for (const filename of ['pty:/dev/pts/3', 'disconnected:tcp:127.0.0.1:9,server=on', 'unix:/client/side', 'unix:@abstract,server=on']) t.match(chardev(filename), { kind: 'none' });
});
