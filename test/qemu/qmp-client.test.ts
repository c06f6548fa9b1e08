/** The QMP client against real QEMU, a real qemu-storage-daemon, and peers that are neither. */
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Fault, isFault, type FaultCode } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpEvent } from '../../qemu/qmp.ts';
import { connect, shortFolder, startQemu, startStorageDaemon, until } from './real-qemu.ts';

const greeting = '{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 9}, "package": ""}, "capabilities": ["oob"]}}\r\n';

/** A peer that does what a test wants with each connection. */
async function startPeer(t: Test, serve: (socket: Socket) => void): Promise<string> {
  const path = join(shortFolder(t), 'peer');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    serve(socket);
  });
  await new Promise<void>((resolve) => { server.listen(path, resolve); });
  t.teardown(() => new Promise<void>((resolve) => {
    for (const socket of sockets) socket.destroy();
    server.close(() => resolve());
  }));
  return path;
}

/** A peer that greets, takes `qmp_capabilities`, and then answers each further command through `answer`. */
function startGreeter(t: Test, answer: (socket: Socket, command: { execute: string; id: number }) => void): Promise<string> {
  return startPeer(t, (socket) => {
    socket.write(greeting);
    let held = '';
    socket.on('data', (bytes) => {
      held += bytes.toString();
      for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
        const command = JSON.parse(held.slice(0, end)) as { execute: string; id: number };
        held = held.slice(end + 1);
        if (command.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${command.id}}\r\n`);
        else answer(socket, command);
      }
    });
  });
}

async function refused(t: Test, promise: Promise<unknown>, code: FaultCode): Promise<Fault> {
  try {
    await promise;
  } catch (error) {
    if (!isFault(error)) throw error;
    t.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`no ${code}`);
}

t.test('a real QEMU', async (t) => {
  const running = await startQemu(t);
  const qmp = await connect(t, running);
  t.ok(qmp.version.major > 7 || (qmp.version.major === 7 && qmp.version.minor >= 2));

  t.test('answers in order, many under way', async (t) => {
    const names = await Promise.all(Array.from({ length: 100 }, (_, i) => (i % 2 === 0
      ? qmp.execute<{ status: string }>('query-status').then((r) => r.status)
      : qmp.execute<unknown[]>('query-block').then((r) => r.length))));
    t.same(names.slice(0, 4), ['running', 0, 'running', 0]);
  });

  t.test('keeps QEMU’s error, and goes on', async (t) => {
    const fault = await refused(t, qmp.execute('blockdev-del', { 'node-name': 'nobody' }), 'QMP_COMMAND');
    t.match(fault.facts, { command: 'blockdev-del', class: 'GenericError', description: /nobody/ });
    const unknown = await refused(t, qmp.execute('make-coffee'), 'QMP_COMMAND');
    t.equal(unknown.facts['class'], 'CommandNotFound');
    t.match(await qmp.execute('query-status'), { running: true });
  });

  t.test('a large answer in many pieces', async (t) => {
    const schema = await qmp.execute<{ name: string }[]>('query-qmp-schema');
    t.ok(schema.some(({ name }) => name === 'blockdev-backup'));
  });

  t.test('an event reaches the listeners before the reply that follows it', async (t) => {
    const order: string[] = [];
    const stop = qmp.onEvent(({ event, atMs }) => {
      order.push(event);
      t.ok(Math.abs(atMs - Date.now()) < 60_000, 'with QEMU’s own time');
    });
    const stopped = qmp.execute('stop').then(() => order.push('stop answered'));
    const continued = qmp.execute('cont').then(() => order.push('cont answered'));
    await Promise.all([stopped, continued]);
    t.ok(order.indexOf('STOP') >= 0 && order.indexOf('STOP') < order.indexOf('stop answered'), order.join(', '));
    t.ok(order.indexOf('RESUME') >= 0 && order.indexOf('RESUME') < order.indexOf('cont answered'), order.join(', '));
    stop();
    const heard = order.length;
    await qmp.execute('stop');
    await qmp.execute('cont');
    t.equal(order.length, heard, 'no more after it stopped listening');
  });

  t.test('a second client hears that the socket is taken', async (t) => {
    const fault = await refused(t, connectQmp(running.qmpPath, { connectTimeoutMs: 300 }), 'QMP_UNREACHABLE');
    t.match(fault.message, /one client at a time/);
    t.match(await qmp.execute('query-status'), { running: true }, 'and the first is undisturbed');
  });

  t.test('its death ends the connection and what was under way', async (t) => {
    const closed = qmp.closed;
    await qmp.execute('stop');
    const late = qmp.execute('query-status');
    running.child.kill('SIGKILL');
    const outcome = await late.then(() => 'answered', (error: unknown) => (isFault(error, 'QMP_CLOSED') ? 'closed' : String(error)));
    t.ok(['answered', 'closed'].includes(outcome), outcome);
    t.equal((await closed).code, 'QMP_CLOSED');
    await refused(t, qmp.execute('query-status'), 'QMP_CLOSED');
  });
});

t.test('a real qemu-storage-daemon', async (t) => {
  const qmp = await connect(t, await startStorageDaemon(t));
  t.same(await qmp.execute('query-named-block-nodes', { flat: true }), []);
  qmp.close();
  t.equal((await qmp.closed).code, 'QMP_CLOSED');
  await refused(t, qmp.execute('query-jobs'), 'QMP_CLOSED');
});

t.test('nobody there', async (t) => {
  const folder = shortFolder(t);
  await refused(t, connectQmp(join(folder, 'nothing')), 'QMP_UNREACHABLE');
  await refused(t, connectQmp(join(folder, 'x'.repeat(200))), 'QMP_UNREACHABLE');
});

t.test('an attempt can be given up', async (t) => {
  const path = await startPeer(t, () => undefined);
  const giveUp = new AbortController();
  const attempt = connectQmp(path, { signal: giveUp.signal });
  giveUp.abort(new Error('enough'));
  await t.rejects(attempt, { message: 'enough' });
  await t.rejects(connectQmp(path, { signal: giveUp.signal }), { message: 'enough' });
});

t.test('peers that are no QMP', async (t) => {
  const peers: Record<string, { serve: (socket: Socket) => void; code: FaultCode }> = {
    'silence': { serve: () => undefined, code: 'QMP_UNREACHABLE' },
    'half a greeting, then silence': { serve: (s) => { s.write(greeting.slice(0, 40)); }, code: 'QMP_UNREACHABLE' },
    'half a greeting, then the end': { serve: (s) => { s.end(greeting.slice(0, 40)); }, code: 'QMP_CLOSED' },
    'the end at once': { serve: (s) => { s.end(); }, code: 'QMP_CLOSED' },
    'a greeting without an answer to capabilities': { serve: (s) => { s.write(greeting); }, code: 'QMP_UNREACHABLE' },
    'binary junk': { serve: (s) => { s.write(Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167 + 10) & 255))); }, code: 'QMP_GARBAGE' },
    'a human monitor': { serve: (s) => { s.write('QEMU 7.2.22 monitor - type \'help\' for more information\r\n(qemu) '); }, code: 'QMP_GARBAGE' },
    'an empty line': { serve: (s) => { s.write('\r\n'); }, code: 'QMP_GARBAGE' },
    'JSON that is no greeting': { serve: (s) => { s.write('{"QMP": {"version": {"qemu": {"major": "nine"}}}}\r\n'); }, code: 'QMP_GARBAGE' },
    'JSON that is no object': { serve: (s) => { s.write('[1]\r\n'); }, code: 'QMP_GARBAGE' },
    'answers to nothing without end': { serve: (s) => { s.write(greeting + '{"return": {}, "id": 77}\r\n'.repeat(17)); }, code: 'QMP_GARBAGE' },
    'answers instead of a greeting': { serve: (s) => { s.write('{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n'.repeat(17)); }, code: 'QMP_GARBAGE' },
    'a nameless event': { serve: (s) => { s.write(`${greeting}{"event": 7}\r\n`); }, code: 'QMP_GARBAGE' },
    'a second greeting': { serve: (s) => { s.write(greeting + greeting); }, code: 'QMP_UNREACHABLE' },
    'something else': { serve: (s) => { s.write(`${greeting}{"hello": 7}\r\n`); }, code: 'QMP_GARBAGE' },
  };
  for (const [name, { serve, code }] of Object.entries(peers)) {
    const path = await startPeer(t, serve);
    await t.test(name, async (t) => { await refused(t, connectQmp(path, { connectTimeoutMs: 1_000 }), code); });
  }
});

t.test('what QEMU still answers to the client before is no answer to this one', async (t) => {
  const leftOver = '{"return": {"of": "another"}, "id": 1}\r\n';
  const qmp = await connectQmp(await startPeer(t, (socket) => {
    socket.write(leftOver + greeting + leftOver);
    let held = '';
    socket.on('data', (bytes) => {
      held += bytes.toString();
      for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
        const { execute, id } = JSON.parse(held.slice(0, end)) as { execute: string; id: number };
        held = held.slice(end + 1);
        socket.write(`{"error": {"class": "GenericError", "desc": "of another"}, "id": ${id - 1}}\r\n`.repeat(execute === 'qmp_capabilities' ? 1 : 0));
        socket.write(`{"return": {"own": true}, "id": ${id}}\r\n`);
      }
    });
  }));
  // One whose answers have no shape of their own.
  t.same(await qmp.execute('query-name'), { own: true });
  qmp.close();
});

t.test('an answer to nothing that was asked, once commands are taken', async (t) => {
  for (const answer of ['{"return": {}, "id": 77}', '{"error": {"class": "GenericError", "desc": "JSON parse error"}}']) {
    const qmp = await connectQmp(await startGreeter(t, (socket) => { socket.write(`${answer}\r\n`); }));
    t.equal((await refused(t, qmp.execute('query-block'), 'QMP_CLOSED')).facts['reason'], 'QMP_GARBAGE', answer);
  }
});

t.test('an endless line is cut off, and little of it was kept', async (t) => {
  let sentBytes = 0;
  const path = await startPeer(t, (socket) => {
    const piece = Buffer.alloc(1024 * 1024, 'x');
    const pour = (): void => {
      while (!socket.destroyed) {
        sentBytes += piece.length;
        if (!socket.write(piece)) { socket.once('drain', pour); return; }
      }
    };
    pour();
  });
  const fault = await refused(t, connectQmp(path, { connectTimeoutMs: 20_000 }), 'QMP_GARBAGE');
  t.match(fault.message, /longer than 16777216/);
  t.ok(sentBytes < 24 * 1024 * 1024, `${sentBytes} bytes`);
});

t.test('a command that is never answered ends the connection', async (t) => {
  const qmp = await connectQmp(await startGreeter(t, () => undefined));
  t.same(qmp.version, { major: 9, minor: 2, micro: 1 });
  const patient = refused(t, qmp.execute('query-jobs'), 'QMP_CLOSED');
  const fault = await refused(t, qmp.execute('query-block', undefined, { timeoutMs: 100 }), 'QMP_TIMEOUT');
  t.match(fault.facts, { command: 'query-block', timeoutMs: 100 });
  t.equal((await patient).facts['reason'], 'QMP_TIMEOUT');
  t.equal(await qmp.closed, fault);
});

t.test('a default time limit holds for every command', async (t) => {
  const qmp = await connectQmp(await startGreeter(t, () => undefined), { commandTimeoutMs: 100 });
  await refused(t, qmp.execute('query-block'), 'QMP_TIMEOUT');
});

t.test('a peer that goes away in the middle of an answer', async (t) => {
  const qmp = await connectQmp(await startGreeter(t, (socket, { id }) => { socket.end(`{"return": {"a": 1}, "id": ${id}`); }));
  await refused(t, qmp.execute('query-block'), 'QMP_CLOSED');
  t.equal((await qmp.closed).code, 'QMP_CLOSED');
});

t.test('garbage in place of an answer', async (t) => {
  const qmp = await connectQmp(await startGreeter(t, (socket) => { socket.write('{"return": nothing}\r\n{"event": "TOO LATE"}\r\n'); }));
  const events: QmpEvent[] = [];
  qmp.onEvent((event) => events.push(event));
  t.equal((await refused(t, qmp.execute('query-block'), 'QMP_CLOSED')).facts['reason'], 'QMP_GARBAGE');
  t.equal((await qmp.closed).code, 'QMP_GARBAGE');
  t.same(events, [], 'nothing after the garbage counts');
});

t.test('answers out of order find their commands; events between them keep their place', async (t) => {
  const asked: number[] = [];
  const qmp = await connectQmp(await startGreeter(t, (socket, { id }) => {
    asked.push(id);
    if (asked.length < 2) return;
    socket.write(`{"return": "second", "id": ${asked[1]}}\r\n{"event": "E", "data": {"n": 1}, "timestamp": {"seconds": -1, "microseconds": -1}}\r\n{"return": "first", "id": ${asked[0]}}\r\n`);
  }));
  const order: unknown[] = [];
  qmp.onEvent(({ event, data }) => order.push(`${event}${data['n']}`));
  const first = qmp.execute('a').then((value) => order.push(value));
  const second = qmp.execute('b').then((value) => order.push(value));
  await Promise.all([first, second]);
  t.ok(order.indexOf('E1') < order.indexOf('first'), order.join(', '));
  t.same([...order].sort(), ['E1', 'first', 'second']);
  qmp.close();
  await until('closed', async () => ((await qmp.closed).code === 'QMP_CLOSED' ? true : undefined));
});
