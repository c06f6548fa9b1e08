/** What a QEMU and a guest's agent say: QMP, the answers from which disks and hardware are read, the agent's replies. Both may be an intruder's. */
import { JobWatch } from '../../daemon/capture/job-watch.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { isFault } from '../../journal/fault.ts';
import { bootCommand } from '../../qemu/boot.ts';
import { readGroupHardware } from '../../qemu/group-hardware.ts';
import { takeDiskInventory } from '../../qemu/guest-disks.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import { recordHardware } from '../../qemu/hardware.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { Decoder } from './decoder.ts';
import { reshapeJson } from './reshape-json.ts';
import { SocketPeer } from './socket-peer.ts';

const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}';
/** Where an answer has it, the id of the command that is answered stands there. */
const idWord = '"@id"';
const noObject = { toString: 0, valueOf: 0 };

function requestsOf(held: { text: string }, chunk: Buffer): { readonly execute?: unknown; readonly id?: unknown; readonly arguments?: unknown }[] {
  held.text += chunk.toString('latin1').replaceAll('\xff', '');
  const lines = held.text.split('\n');
  held.text = lines.pop()!;
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as object);
}

/** Lines: the greeting, then for each command lines up to the one that answers it. */
function qmp(): Decoder {
  const peer = new SocketPeer();
  const lines = [
    greeting, `{"return": {}, "id": ${idWord}}`,
    '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "JOB_STATUS_CHANGE", "data": {"id": "afterimage-1", "status": "running"}}',
    '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "QUORUM_REPORT_BAD", "data": {"node-name": "afterimage-q", "type": "write", "error": "No space left on device"}}',
    '{"event": "BLOCK_IO_ERROR", "data": {"operation": "write", "device": "d"}}', `{"return": {"status": "running"}, "id": ${idWord}}`,
    `{"id": ${idWord}, "error": {"class": "GenericError", "desc": "no such thing"}}`,
  ];
  return {
    name: 'qmp', faults: ['QMP_UNREACHABLE', 'QMP_CLOSED', 'QMP_GARBAGE'], inputBytesMax: 256 * 1024, bufferBytesMax: (inputBytes) => 1024 ** 2 + 64 * inputBytes,
    words: [idWord, '"event":', '"error":', '"return":', JSON.stringify(noObject), '\n', '"id":'],
    seeds: () => [Buffer.from(`${lines.join('\n')}\n`)],
    reshape(input, dice) {
      const all = input.toString('utf8').split('\n');
      const at = dice.integer(all.length);
      const text = reshapeJson(all[at]!, dice);
      return text === null ? null : Buffer.from([...all.slice(0, at), text, ...all.slice(at + 1)].join('\n'));
    },
    async decode(input) {
      const left = input.toString('latin1').split('\n');
      peer.serve = (socket) => {
        const held = { text: '' };
        socket.write(`${left.shift() ?? ''}\n`, 'latin1');
        socket.on('data', (chunk: Buffer) => {
          for (const { id } of requestsOf(held, chunk)) {
            let isAnswered = false;
            while (left.length > 0 && !isAnswered) {
              const line = left.shift()!;
              isAnswered = line.includes(idWord);
              socket.write(`${line.replaceAll(idWord, String(id))}\n`, 'latin1');
            }
            if (!isAnswered) socket.end();
          }
        });
      };
      const client = await connectQmp(await peer.listen(), { connectTimeoutMs: 5000, commandTimeoutMs: 5000 });
      new JobWatch(client, nodeClock);
      try {
        for (const command of ['query-status', 'query-jobs']) {
          try {
            await client.execute(command);
          } catch (error) {
            if (!isFault(error, 'QMP_COMMAND')) throw error;
          }
        }
      } finally {
        client.close();
      }
    },
    close: () => peer.close(),
  };
}

/** Answers by command; by command and its arguments where there are several. What is not among them is refused, as an older QEMU does. */
const answers: Readonly<Record<string, unknown>> = {
  'query-block': [
    { device: 'drive0', qdev: '/machine/peripheral/vd0/virtio-backend', type: 'unknown', removable: false, locked: false, inserted: { 'node-name': 'n0', ro: false, drv: 'qcow2', file: 'a.qcow2', image: { 'virtual-size': 1_048_576, filename: 'a.qcow2' } } },
    { device: 'cd0', qdev: '/machine/unattached/device[9]', type: 'unknown', removable: true, locked: false },
  ],
  'query-named-block-nodes': [
    { 'node-name': 'n0', drv: 'qcow2', ro: false, file: 'a.qcow2', image: { filename: 'a.qcow2', 'virtual-size': 1_048_576, 'format-specific': { type: 'qcow2', data: { compat: '1.1' } } } },
    { 'node-name': 'f0', drv: 'file', ro: false, file: 'a.qcow2', image: { filename: 'a.qcow2', 'virtual-size': 1_048_576 } },
  ],
  'x-debug-query-block-graph': {
    nodes: [{ id: 1, type: 'block-driver', name: 'n0' }, { id: 2, type: 'block-driver', name: 'f0' }, { id: 3, type: 'block-backend', name: 'drive0' }],
    edges: [{ parent: 1, child: 2, name: 'file' }, { parent: 3, child: 1, name: 'root' }],
  },
  'qom-get type': 'pc-q35-7.2-machine', 'qom-get smp': { cpus: 2, maxcpus: 2, sockets: 1, dies: 1, clusters: 1, cores: 2, threads: 1 },
  'qom-get rtc-time': { tm_year: 126, tm_mon: 10, tm_mday: 2, tm_hour: 3, tm_min: 4, tm_sec: 5 }, 'qom-get boot': { order: 'c', menu: false },
  'query-target': { arch: 'x86_64' }, 'query-kvm': { enabled: false, present: true }, 'query-name': { name: 'web1' }, 'query-uuid': { UUID: '2bf4f5e6-2b5e-4ffe-8e09-3f3b9d1f2b11' },
  'query-memory-size-summary': { 'base-memory': 268_435_456, 'plugged-memory': 0 }, 'query-memdev': [{ id: 'ram' }],
  'query-cpus-fast': [{ 'cpu-index': 0, 'qom-path': '/machine/unattached/device[0]', 'thread-id': 5, target: 'x86_64' }],
  'query-cpu-definitions': [{ name: 'qemu64', typename: 'qemu64-x86_64-cpu' }], 'query-cpu-model-expansion': { model: { name: 'qemu64', props: { sse: true } } },
  'query-iothreads': [{ id: 'io0', 'thread-id': 3, 'poll-max-ns': 32_768 }],
  'qom-list': [{ name: 'vd0', type: 'child<virtio-blk-pci>' }, { name: 'type', type: 'string' }],
  'device-list-properties': [{ name: 'num-queues', type: 'uint16', 'default-value': 1 }],
};

async function look(qmpConnection: QmpConnection): Promise<void> {
  await takeDiskInventory(qmpConnection);
  await recordHardware(qmpConnection);
}

function guest(): Decoder {
  const peer = new SocketPeer();
  return {
    name: 'qmp-answers', faults: ['QMP_CLOSED', 'QMP_GARBAGE', 'QMP_COMMAND', 'QMP_UNREACHABLE', 'GUEST_UNSUITED'], isText: true, inputBytesMax: 128 * 1024,
    bufferBytesMax: (inputBytes) => 4 * 1024 ** 2 + 4096 * inputBytes,
    seeds: () => [Buffer.from(JSON.stringify(answers))],
    async decode(input) {
      const table = parsed(input.toString('utf8'));
      peer.serve = (socket) => {
        const held = { text: '' };
        socket.write(`${greeting}\n`);
        socket.on('data', (chunk: Buffer) => {
          for (const { execute, id, arguments: args } of requestsOf(held, chunk)) {
            const named = `${String(execute)} ${String((args as { property?: unknown } | undefined)?.property)}`;
            const raw = table.get(named) ?? table.get(String(execute));
            const answer = execute === 'qmp_capabilities' ? '"return": {}' : raw === undefined ? '"error": {"class": "CommandNotFound", "desc": "no"}' : `"return": ${raw}`;
            socket.write(`{${answer}, "id": ${String(id)}}\n`);
          }
        });
      };
      const client = await connectQmp(await peer.listen(), { connectTimeoutMs: 5000, commandTimeoutMs: 5000 });
      try {
        await look(client);
      } finally {
        client.close();
      }
    },
    close: () => peer.close(),
  };
}

/** Each answer as text: it may be deeper than it could be written again. */
function parsed(text: string): ReadonlyMap<string, string> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return new Map();
    return new Map(Object.entries(value).map(([command, answer]) => [command, JSON.stringify(answer)]));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return new Map([['query-block', text.replaceAll('\n', ' ')]]);
    throw error;
  }
}

const syncWord = '"@sync"';

function agent(): Decoder {
  const peer = new SocketPeer();
  const lines = [
    `\xff{"return": ${syncWord}}`, '{"return": {}}', '{"return": {"version": "7.2.22", "supported_commands": [{"name": "guest-fsfreeze-freeze", "enabled": true, "success-response": true}]}}',
    '{"return": "thawed"}', '{"return": 2}', '{"error": {"class": "GenericError", "desc": "no file system"}}',
  ];
  return {
    name: 'agent', faults: ['AGENT_GARBAGE', 'AGENT_REFUSED', 'AGENT_CLOSED', 'AGENT_SILENT', 'AGENT_UNREACHABLE'], inputBytesMax: 300 * 1024, bufferBytesMax: (inputBytes) => 1024 ** 2 + 64 * inputBytes,
    words: [syncWord, '"return":', '"error":', JSON.stringify(noObject), '\n', Buffer.of(0xff), '[null]'],
    seeds: () => [Buffer.from(lines.join('\n'), 'latin1')],
    reshape(input, dice) {
      const all = input.toString('latin1').split('\n');
      const at = dice.integer(all.length);
      const text = reshapeJson(all[at]!.replaceAll('\xff', ''), dice);
      return text === null ? null : Buffer.from([...all.slice(0, at), (at === 0 ? '\xff' : '') + Buffer.from(text).toString('latin1'), ...all.slice(at + 1)].join('\n'), 'latin1');
    },
    async decode(input) {
      const left = input.toString('latin1').split('\n');
      peer.serve = (socket) => {
        const held = { text: '' };
        let sync = '';
        socket.on('data', (chunk: Buffer) => {
          for (const { execute, arguments: args } of requestsOf(held, chunk)) {
            if (execute === 'guest-sync-delimited') sync = String((args as { id?: unknown }).id);
            const line = left.shift();
            if (line === undefined) socket.end();
            else socket.write(`${line.replaceAll(syncWord, sync)}\n`, 'latin1');
          }
        });
      };
      const client = await connectGuestAgent(await peer.listen());
      const answerMs = 30;
      try {
        await client.ping(answerMs);
        await client.info(answerMs);
        await client.freezeStatus(answerMs);
        await client.freeze(answerMs);
        await client.thaw(answerMs).catch((error: unknown) => {
          if (!isFault(error, 'AGENT_REFUSED')) throw error;
        });
      } finally {
        client.close();
      }
    },
    close: () => peer.close(),
  };
}

const hardware = {
  version: 1, qemuVersion: '7.2.22', arch: 'x86_64', accel: 'tcg', name: 'web1', uuid: '2bf4f5e6-2b5e-4ffe-8e09-3f3b9d1f2b11', machine: { type: 'pc-q35-7.2', options: { 'hpet': true } },
  cpu: { model: 'qemu64', features: { sse: true } }, smp: { cpus: 2, maxCpus: 2, sockets: 1, dies: 1, clusters: 1, cores: 2, threads: 1 }, memory: { sizeBytes: 268_435_456 },
  ioThreads: [{ id: 'io0', properties: { 'poll-max-ns': 32_768 } }],
  devices: [
    { path: '/machine/peripheral/rp0', driver: 'pcie-root-port', id: 'rp0', bus: { name: 'pcie.0', index: 0 }, address: '2.0', properties: { port: 1 } },
    { path: '/machine/peripheral/vd0', driver: 'virtio-blk-pci', id: 'vd0', bus: { name: 'rp0', owner: '/machine/peripheral/rp0', index: 0 }, address: '0.0', iothread: 'io0', disk: 'vd0', properties: { 'num-queues': 2 } },
    { path: '/machine/peripheral/n0', driver: 'virtio-net-pci', id: 'n0', bus: { name: 'pcie.0', index: 0 }, address: '3.0', properties: { mac: '52:54:00:12:34:56' } },
  ],
  disks: [{ name: 'vd0', sizeBytes: 1_048_576 }], serialPorts: 1, kernel: { kernel: '/boot/vmlinuz', append: 'console=ttyS0' }, rtcBase: 'utc', notes: [],
};

/** A guest's hardware as a source announces it, up to the command line that it would be started with. */
const recorded: Decoder = {
  name: 'hardware', faults: ['GUEST_UNSUITED', 'FAILOVER_BOOT'], isText: true, inputBytesMax: 128 * 1024, bufferBytesMax: () => 1024 ** 2,
  seeds: () => [hardware, { guests: [{ name: 'db', disks: 1, hardware }, { name: 'web', disks: 1, hardware }] }].map((value) => Buffer.from(JSON.stringify(value))),
  decode(input) {
    let value: unknown;
    try {
      value = JSON.parse(input.toString('utf8'));
    } catch (error) {
      if (error instanceof SyntaxError) return;
      throw error;
    }
    if (typeof value !== 'object' || value === null) return;
    const read = readGroupHardware(value as Record<string, unknown>, 'web1');
    if ('flaw' in read) return;
    for (const { hardware: one } of read.guests) {
      const { argv } = bootCommand(one, { disks: one.disks.map(({ name }, disk) => ({ disk, name, path: '/i.raw', format: 'raw' })), qmpPath: '/q', pidFile: '/p', consoleLog: '/l', network: 'none', accel: 'tcg', isThere: () => true });
      // No argument of a process can hold one, and options of ours come from us alone.
      if (argv.some((argument) => argument.includes('\0'))) throw new Error('a zero byte in the command line');
    }
  },
};

export const hypervisorDecoders = (): readonly Decoder[] => [qmp(), guest(), agent(), recorded];
