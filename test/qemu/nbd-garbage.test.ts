/** The NBD client against servers that break the protocol, one way each; nothing of theirs may be believed, or allocated for. */
import type { Socket } from 'node:net';
import t, { type Test } from 'tap';
import { connectNbd, type NbdClient } from '../../qemu/nbd-client.ts';
import {
  encodeChunkHeader, encodeInfoBlockSize, encodeInfoExport, encodeOptionReply, encodeSimpleReply, encodeString, nbdBaseAllocation, nbdChunk,
  nbdCommand, nbdGreetingBytes, nbdInfo, nbdMagic, nbdOldstyleMagic, nbdOption, nbdOptionMagic, nbdReply, nbdRequestBytes, writeUInt64,
  type NbdRequest,
} from '../../qemu/nbd-protocol.ts';
import type { FaultCode } from '../../journal/fault.ts';
import { connectTo, refused, startPeer } from './nbd-peers.ts';
import { until } from './real-qemu.ts';

const sizeBytes = 1024 * 1024;

function greeting(flags = 3, second = nbdOptionMagic): Buffer {
  const bytes = Buffer.alloc(nbdGreetingBytes);
  bytes.writeBigUInt64BE(nbdMagic, 0);
  bytes.writeBigUInt64BE(second, 8);
  bytes.writeUInt16BE(flags, 16);
  return bytes;
}

type Answer = (option: number, data: Buffer) => Buffer;

function context(id: number, name: string): Buffer {
  return Buffer.concat([encodeString(name).fill(0, 0, 4).fill(id, 3, 4)]);
}

const soundAnswers: Answer = (option) => {
  switch (option) {
    case nbdOption.setMetaContext:
      return Buffer.concat([encodeOptionReply(option, nbdReply.metaContext, context(7, nbdBaseAllocation)), encodeOptionReply(option, nbdReply.ack)]);
    case nbdOption.go:
      return Buffer.concat([encodeOptionReply(option, nbdReply.info, encodeInfoExport(sizeBytes, 0x1 | 0x4)), encodeOptionReply(option, nbdReply.ack)]);
    default: return encodeOptionReply(option, nbdReply.ack);
  }
};

/** Speaks the handshake, with `answer` for each option, then gives each request to `serve`. */
function startHaggler(t: Test, answer: Answer, serve: (socket: Socket, request: NbdRequest) => void = () => undefined): Promise<string> {
  return startPeer(t, (socket) => {
    socket.write(greeting());
    let held = Buffer.alloc(0);
    let stage: 'flags' | 'options' | 'requests' = 'flags';
    socket.on('data', (bytes) => {
      held = Buffer.concat([held, bytes]);
      for (;;) {
        if (stage === 'flags' && held.length >= 4) {
          held = held.subarray(4);
          stage = 'options';
        } else if (stage === 'options' && held.length >= 16 && held.length >= 16 + held.readUInt32BE(12)) {
          const option = held.readUInt32BE(8);
          socket.write(answer(option, held.subarray(16, 16 + held.readUInt32BE(12))));
          held = held.subarray(16 + held.readUInt32BE(12));
          if (option === nbdOption.go) stage = 'requests';
        } else if (stage === 'requests' && held.length >= nbdRequestBytes) {
          const head = held;
          held = held.subarray(nbdRequestBytes);
          serve(socket, { flags: head.readUInt16BE(4), type: head.readUInt16BE(6), cookieHigh: head.readUInt32BE(8), cookieLow: head.readUInt32BE(12), offset: Number(head.readBigUInt64BE(16)), length: head.readUInt32BE(24) });
        } else {
          return;
        }
      }
    });
  });
}

function chunk(request: NbdRequest, type: number, payload: Buffer, isDone = true, claimedBytes = payload.length): Buffer {
  const head = Buffer.alloc(20);
  encodeChunkHeader(head, 0, isDone ? 1 : 0, type, request, claimedBytes);
  return Buffer.concat([head, payload]);
}

function content(offset: number, bytes: Buffer): Buffer {
  const head = Buffer.alloc(8);
  writeUInt64(head, offset, 0);
  return Buffer.concat([head, bytes]);
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => bytes.writeUInt32BE(value, 4 * i));
  return bytes;
}

function errorPayload(error: number, textBytes: number, rest: Buffer): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt32BE(error, 0);
  bytes.writeUInt16BE(textBytes, 4);
  return Buffer.concat([bytes, rest]);
}

t.test('handshakes', async (t) => {
  const only = (option: number, ...replies: Buffer[]): Answer => (asked, data) => (asked === option ? Buffer.concat(replies) : soundAnswers(asked, data));
  const go = (...replies: Buffer[]): Answer => only(nbdOption.go, ...replies);
  const ack = encodeOptionReply(nbdOption.go, nbdReply.ack);
  const info = (data: Buffer): Buffer => encodeOptionReply(nbdOption.go, nbdReply.info, data);
  const hugeReply = encodeOptionReply(nbdOption.go, nbdReply.info);
  hugeReply.writeUInt32BE(0xffffffff, 16);
  const peers: Record<string, { raw?: (socket: Socket) => void; answer?: Answer; code: FaultCode }> = {
    'silence': { raw: () => undefined, code: 'NBD_CLOSED' },
    'the end at once': { raw: (s) => { s.end(); }, code: 'NBD_CLOSED' },
    'half a greeting, then the end': { raw: (s) => { s.end(greeting().subarray(0, 10)); }, code: 'NBD_CLOSED' },
    'junk': { raw: (s) => { s.write(Buffer.alloc(100_000, 'QMP?')); }, code: 'NBD_PROTOCOL' },
    'another second word': { raw: (s) => { s.write(greeting(3, 1n)); }, code: 'NBD_PROTOCOL' },
    'oldstyle': { raw: (s) => { s.write(greeting(3, nbdOldstyleMagic)); }, code: 'NBD_REFUSED' },
    'newstyle that is not fixed': { raw: (s) => { s.write(greeting(0)); }, code: 'NBD_REFUSED' },
    'an answer without magic': { answer: go(Buffer.alloc(20, 1)), code: 'NBD_PROTOCOL' },
    'an answer to another option': { answer: go(encodeOptionReply(nbdOption.list, nbdReply.ack)), code: 'NBD_PROTOCOL' },
    'a huge answer': { answer: go(hugeReply), code: 'NBD_PROTOCOL' },
    'no description': { answer: go(ack), code: 'NBD_PROTOCOL' },
    'a short description': { answer: go(info(encodeInfoExport(1, 1).subarray(0, 6)), ack), code: 'NBD_PROTOCOL' },
    'an endless export': { answer: go(info(encodeInfoExport(1, 1).fill(0xff, 2, 10)), ack), code: 'NBD_PROTOCOL' },
    'no transmission flags': { answer: go(info(encodeInfoExport(1, 0)), ack), code: 'NBD_PROTOCOL' },
    'a block size that is none': { answer: go(info(encodeInfoExport(1, 1)), info(encodeInfoBlockSize({ minimumBytes: 3, preferredBytes: 4096, payloadBytesMax: 65536 })), ack), code: 'NBD_PROTOCOL' },
    'information without a type': { answer: go(info(Buffer.alloc(1)), ack), code: 'NBD_PROTOCOL' },
    'answers without end': { answer: go(...Array.from({ length: 2000 }, () => info(words(nbdInfo.name)))), code: 'NBD_PROTOCOL' },
    'wants TLS': { answer: go(encodeOptionReply(nbdOption.go, nbdReply.errTlsReqd, Buffer.from('no plain text here'))), code: 'NBD_REFUSED' },
    'a context that nobody asked for': { answer: only(nbdOption.setMetaContext, encodeOptionReply(nbdOption.setMetaContext, nbdReply.metaContext, context(1, 'x-a:b')), encodeOptionReply(nbdOption.setMetaContext, nbdReply.ack)), code: 'NBD_PROTOCOL' },
    'a context twice': { answer: only(nbdOption.setMetaContext, encodeOptionReply(nbdOption.setMetaContext, nbdReply.metaContext, context(1, nbdBaseAllocation)), encodeOptionReply(nbdOption.setMetaContext, nbdReply.metaContext, context(2, nbdBaseAllocation)), encodeOptionReply(nbdOption.setMetaContext, nbdReply.ack)), code: 'NBD_PROTOCOL' },
    'no context': { answer: only(nbdOption.setMetaContext, encodeOptionReply(nbdOption.setMetaContext, nbdReply.ack)), code: 'NBD_REFUSED' },
  };
  for (const [name, { raw, answer, code }] of Object.entries(peers)) {
    await t.test(name, async (t) => {
      const path = raw === undefined ? await startHaggler(t, answer!) : await startPeer(t, raw);
      const fault = await refused(t, connectNbd({ path, exportName: '', metaContexts: [nbdBaseAllocation], timeoutMs: name === 'silence' ? 300 : 10_000 }), code);
      t.equal(fault.facts['path'], path);
    });
  }
});

t.test('a server without structured replies, in so many words', async (t) => {
  const path = await startHaggler(t, (option, data) => (option === nbdOption.structuredReply ? encodeOptionReply(option, nbdReply.errUnsup) : soundAnswers(option, data)), (socket, request) => {
    const reply = Buffer.alloc(16);
    encodeSimpleReply(reply, 0, request.offset === 0 ? 0 : 5, request);
    socket.write(request.offset === 0 ? Buffer.concat([reply, Buffer.alloc(request.length, 'z')]) : reply);
  });
  const client = await connectTo(t, path);
  const into = Buffer.alloc(1024);
  await Promise.all([client.read(into, 0, 1024, 0), refused(t, client.read(into, 0, 512, 512), 'NBD_IO')]);
  t.ok(into.equals(Buffer.alloc(1024, 'z')));
});

t.test('replies', async (t) => {
  const read = (client: NbdClient): Promise<unknown> => client.read(Buffer.alloc(8192), 0, 4096, 4096);
  const flush = (client: NbdClient): Promise<unknown> => client.flush();
  const status = (client: NbdClient): Promise<unknown> => client.blockStatus(0, 65536);
  const data = Buffer.alloc(4096, 1);
  const simple = (request: NbdRequest): Buffer => {
    const reply = Buffer.alloc(16);
    encodeSimpleReply(reply, 0, 0, request);
    return reply;
  };
  const cases: Record<string, { ask: (client: NbdClient) => Promise<unknown>; answer: (request: NbdRequest) => Buffer }> = {
    'no magic': { ask: read, answer: () => Buffer.alloc(64, 1) },
    'to nothing that was asked': { ask: read, answer: (r) => chunk({ ...r, cookieLow: r.cookieLow + 1 }, nbdChunk.none, Buffer.alloc(0)) },
    'to a read, but simple': { ask: read, answer: simple },
    'data before its range': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, content(4095, data.subarray(1))) },
    'data behind its range': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, content(4097, data)) },
    'more data than asked for': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, content(4096, Buffer.alloc(4097))) },
    'a length beyond all bounds': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, content(4096, data), true, 0xffffffff) },
    'an offset beyond all bounds': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, Buffer.concat([Buffer.alloc(8, 0xff), data])) },
    'no data in a data chunk': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetData, content(4096, Buffer.alloc(0))) },
    'the same data twice': { ask: read, answer: (r) => Buffer.concat([chunk(r, nbdChunk.offsetData, content(4096, data.subarray(0, 2048)), false), chunk(r, nbdChunk.offsetData, content(4096, data.subarray(0, 2048)))]) },
    'data over a hole': { ask: read, answer: (r) => Buffer.concat([chunk(r, nbdChunk.offsetHole, content(4096, words(4096)), false), chunk(r, nbdChunk.offsetData, content(8191, data.subarray(0, 1)))]) },
    'success without all the data': { ask: read, answer: (r) => Buffer.concat([chunk(r, nbdChunk.offsetData, content(4096, data.subarray(1)), false), chunk(r, nbdChunk.none, Buffer.alloc(0))]) },
    'success without any data': { ask: read, answer: (r) => chunk(r, nbdChunk.none, Buffer.alloc(0)) },
    'a hole too large': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetHole, content(4096, words(4097))) },
    'a hole of nothing': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetHole, content(4096, words(0))) },
    'a hole of odd make': { ask: read, answer: (r) => chunk(r, nbdChunk.offsetHole, content(4096, words(4096, 0))) },
    'a chunk of unknown type': { ask: read, answer: (r) => chunk(r, 3, Buffer.alloc(8)) },
    'NONE with something in it': { ask: flush, answer: (r) => chunk(r, nbdChunk.none, Buffer.alloc(8)) },
    'NONE that is not the last': { ask: flush, answer: (r) => chunk(r, nbdChunk.none, Buffer.alloc(0), false) },
    'data to a flush': { ask: flush, answer: (r) => chunk(r, nbdChunk.offsetData, content(0, data)) },
    'block status to a flush': { ask: flush, answer: (r) => chunk(r, nbdChunk.blockStatus, words(7, 512, 0)) },
    'an error that is none': { ask: flush, answer: (r) => chunk(r, nbdChunk.error, errorPayload(0, 0, Buffer.alloc(0))) },
    'an error with more words than bytes': { ask: flush, answer: (r) => chunk(r, nbdChunk.error, errorPayload(5, 10, Buffer.alloc(9))) },
    'an error that is too short': { ask: flush, answer: (r) => chunk(r, nbdChunk.error, words(5)) },
    'an error of endless words': { ask: flush, answer: (r) => chunk(r, nbdChunk.error, errorPayload(5, 65535, Buffer.alloc(65535))) },
    'block status without extents': { ask: status, answer: (r) => chunk(r, nbdChunk.blockStatus, words(7)) },
    'block status of another context': { ask: status, answer: (r) => chunk(r, nbdChunk.blockStatus, words(8, 512, 0)) },
    'block status twice': { ask: status, answer: (r) => Buffer.concat([chunk(r, nbdChunk.blockStatus, words(7, 512, 0), false), chunk(r, nbdChunk.blockStatus, words(7, 512, 0))]) },
    'block status with an empty extent': { ask: status, answer: (r) => chunk(r, nbdChunk.blockStatus, words(7, 0, 0)) },
    'block status with half an extent': { ask: status, answer: (r) => chunk(r, nbdChunk.blockStatus, words(7, 512, 0, 512)) },
    'block status of gigabytes': { ask: status, answer: (r) => chunk(r, nbdChunk.blockStatus, words(7, 512, 0), true, 0xfffffff4) },
    'success without block status': { ask: status, answer: (r) => chunk(r, nbdChunk.none, Buffer.alloc(0)) },
  };
  for (const [name, { ask, answer }] of Object.entries(cases)) {
    await t.test(name, async (t) => {
      const path = await startHaggler(t, soundAnswers, (socket, request) => { socket.write(answer(request)); });
      const client = await connectTo(t, path, { metaContexts: [nbdBaseAllocation], timeoutMs: 5_000 });
      // The first to break it ends it for the others too.
      const other = refused(t, client.read(Buffer.alloc(512), 0, 512, 512 * 1024), 'NBD_PROTOCOL');
      const fault = await refused(t, ask(client), 'NBD_PROTOCOL');
      await other;
      t.equal(fault.facts['reason'], 'NBD_PROTOCOL');
      t.equal((await client.closed).code, 'NBD_PROTOCOL');
    });
  }
});

t.test('replies that are odd, but allowed', async (t) => {
  const path = await startHaggler(t, soundAnswers, (socket, r) => {
    if (r.type === nbdCommand.disc) return;
    if (r.type === nbdCommand.blockStatus) {
      // Longer than asked for, beyond the end of the export, the same flags twice, one unknown flag.
      socket.write(chunk(r, nbdChunk.blockStatus, words(7, 512, 3, 512, 3, 0xfffffe00, 0x80000000)));
      return;
    }
    if (r.type === nbdCommand.flush) {
      // An error of a type that nobody knows, with a number that nobody knows.
      socket.write(chunk(r, 0x8abc, errorPayload(1234, 3, Buffer.from('oh!and more'))));
      return;
    }
    // Chunks out of order, byte by byte, and the last one is NONE.
    const bytes = Buffer.concat([
      chunk(r, nbdChunk.offsetData, content(r.offset + 2, Buffer.from('cd')), false),
      chunk(r, nbdChunk.offsetHole, content(r.offset + 4, words(r.length - 4)), false),
      chunk(r, nbdChunk.offsetData, content(r.offset, Buffer.from('ab')), false),
      ...(r.offset === 512 ? [chunk(r, nbdChunk.errorOffset, errorPayload(5, 3, Buffer.concat([Buffer.from('bad'), content(513, Buffer.alloc(0))])), false)] : []),
      chunk(r, nbdChunk.none, Buffer.alloc(0)),
    ]);
    for (let at = 0; at < bytes.length; at++) socket.write(bytes.subarray(at, at + 1));
  });
  const client = await connectTo(t, path, { metaContexts: [nbdBaseAllocation] });
  const into = Buffer.alloc(512, 1);
  await client.read(into, 0, 512, 0);
  t.ok(into.equals(Buffer.concat([Buffer.from('abcd'), Buffer.alloc(508)])));
  t.match((await refused(t, client.read(into, 0, 512, 512), 'NBD_IO')).facts, { errno: 'EIO', at: 513 });
  const fault = await refused(t, client.flush(), 'NBD_IO');
  t.match(fault.facts, { errno: 'EINVAL' });
  t.match(fault.message, /oh!$/);
  t.same((await client.blockStatus(sizeBytes - 2048, 512)).get(nbdBaseAllocation), [
    { offset: sizeBytes - 2048, length: 512, flags: 3 }, { offset: sizeBytes - 1536, length: 512, flags: 3 }, { offset: sizeBytes - 1024, length: 1024, flags: 0x80000000 },
  ]);
});

t.test('a server that is going down is left politely', async (t) => {
  let isDisconnected = false;
  const path = await startHaggler(t, soundAnswers, (socket, r) => {
    if (r.type === nbdCommand.disc) { isDisconnected = true; socket.end(); return; }
    socket.write(chunk(r, nbdChunk.error, errorPayload(108, 0, Buffer.alloc(0))));
  });
  const client = await connectTo(t, path);
  t.match((await refused(t, client.flush(), 'NBD_IO')).facts, { errno: 'ESHUTDOWN' });
  t.equal((await client.closed).code, 'NBD_CLOSED');
  await client.close();
  await until('the server hears NBD_CMD_DISC', () => isDisconnected || undefined);
});

t.test('no buffer is touched after its request is settled', async (t) => {
  const path = await startHaggler(t, soundAnswers, (socket, r) => {
    if (r.type === nbdCommand.disc) return;
    // Half of the data, and the other half only when the client has long given up.
    const bytes = chunk(r, nbdChunk.offsetData, content(r.offset, Buffer.alloc(r.length, 'x')));
    socket.write(bytes.subarray(0, bytes.length / 2));
    setTimeout(() => { socket.write(bytes.subarray(bytes.length / 2)); }, 100);
  });
  const client = await connectTo(t, path);
  const into = Buffer.alloc(sizeBytes);
  const read = refused(t, client.read(into, 0, sizeBytes, 0), 'NBD_CLOSED');
  while (into[sizeBytes / 4] === 0) await new Promise((resolve) => { setImmediate(resolve); });
  const closing = client.close();
  await read;
  const kept = Buffer.from(into);
  await closing;
  t.ok(into.equals(kept));
});
