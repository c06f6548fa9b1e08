/** NBD from both ends: what a server answers to our client, what a client sends to our server. */
import { connect } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Fault } from '../../journal/fault.ts';
import { enterExport, optionReplyBytesMax } from '../../qemu/nbd-client-handshake.ts';
import { NbdCover } from '../../qemu/nbd-cover.ts';
import type { NbdHandler } from '../../qemu/nbd-handler.ts';
import { NbdInlet } from '../../qemu/nbd-inlet.ts';
import {
  encodeChunkHeader, encodeGo, encodeInfoBlockSize, encodeInfoExport, encodeMetaQuery, encodeOption, encodeOptionReply, encodeRequest, encodeSimpleReply, encodeString, nbdBaseAllocation, nbdChunk,
  nbdCommand, nbdGreetingBytes, nbdInfo, nbdMagic, nbdOption, nbdOptionMagic, nbdReply, nbdRequestBytes, writeUInt64, type NbdRequest,
} from '../../qemu/nbd-protocol.ts';
import { contentHeadBytes, errorPayloadBytesMax, NbdReplyReader, type NbdUnderWay } from '../../qemu/nbd-reply-reader.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import type { Decoder } from './decoder.ts';

const diskBytes = 1024 ** 2;

function greeting(): Buffer {
  const bytes = Buffer.alloc(nbdGreetingBytes);
  bytes.writeBigUInt64BE(nbdMagic, 0);
  bytes.writeBigUInt64BE(nbdOptionMagic, 8);
  bytes.writeUInt16BE(3, 16);
  return bytes;
}

function contextReply(): Buffer {
  const context = encodeString(nbdBaseAllocation);
  context.writeUInt32BE(7, 0);
  return encodeOptionReply(nbdOption.setMetaContext, nbdReply.metaContext, context);
}

const handshake: Decoder = {
  name: 'nbd-handshake', faults: ['NBD_PROTOCOL', 'NBD_REFUSED', 'NBD_CLOSED'], inputBytesMax: 64 * 1024, bufferBytesMax: (inputBytes) => 256 * 1024 + 8 * inputBytes,
  seeds: () => [Buffer.concat([
    greeting(), encodeOptionReply(nbdOption.structuredReply, nbdReply.ack), contextReply(), encodeOptionReply(nbdOption.setMetaContext, nbdReply.ack),
    encodeOptionReply(nbdOption.go, nbdReply.info, encodeInfoExport(diskBytes, 0x1 | 0x4)),
    encodeOptionReply(nbdOption.go, nbdReply.info, encodeInfoBlockSize({ minimumBytes: 512, preferredBytes: 4096, payloadBytesMax: 1024 ** 2 })),
    encodeOptionReply(nbdOption.go, nbdReply.ack),
  ])],
  async decode(input) {
    let at = 0;
    await enterExport({
      async take(bytes) {
        // As the client's inlet: it has room for the longest head alone.
        if (bytes > Math.max(optionReplyBytesMax, errorPayloadBytesMax)) throw new Error(`${bytes} bytes were ordered at once`);
        if (at + bytes > input.length) throw new CutOff();
        at += bytes;
        return Buffer.from(input.subarray(at - bytes, at));
      },
      send: () => undefined, exportName: '', metaContexts: [nbdBaseAllocation], path: 'peer',
    }).catch((error: unknown) => {
      if (!(error instanceof CutOff)) throw error;
    });
  },
};

class CutOff extends Error {}

function underWay(cookie: number, type: number, offset: number, length: number): NbdUnderWay {
  return {
    cookie, type, offset, length, startedMs: 0, into: type === nbdCommand.read ? Buffer.alloc(length) : null, intoAt: 0, cover: type === nbdCommand.read ? new NbdCover(offset, length) : null,
    found: new Map(), failure: null, resolve: () => undefined, reject: () => undefined,
  };
}

function asked(cookieLow: number, type: number, offset: number, length: number): NbdRequest {
  return { flags: 0, type, cookieHigh: 0, cookieLow, offset, length };
}

function chunk(type: number, flags: number, cookie: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(20 + payload.length);
  encodeChunkHeader(bytes, 0, flags, type, asked(cookie, 0, 0, 0), payload.length);
  payload.copy(bytes, 20);
  return bytes;
}

function offsetOf(offset: number, more: Buffer): Buffer {
  const bytes = Buffer.alloc(8);
  writeUInt64(bytes, offset, 0);
  return Buffer.concat([bytes, more]);
}

function simple(cookie: number, error: number): Buffer {
  const bytes = Buffer.alloc(16);
  encodeSimpleReply(bytes, 0, error, asked(cookie, 0, 0, 0));
  return bytes;
}

function words32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32BE(value, 4 * index));
  return bytes;
}

/** Replies to four requests: two reads, a block status, a flush. */
const replies: Decoder = {
  name: 'nbd-replies', faults: [], inputBytesMax: 128 * 1024,
  // The inlet's own, the reads' targets, one block status of the most descriptors.
  bufferBytesMax: (inputBytes) => 10 * 1024 ** 2 + 4 * inputBytes,
  seeds: () => [Buffer.concat([
    chunk(nbdChunk.offsetData, 0, 1, offsetOf(4096, Buffer.alloc(4096, 1))), chunk(nbdChunk.offsetHole, 1, 1, offsetOf(8192, words32(4096))),
    chunk(nbdChunk.blockStatus, 1, 3, words32(7, 65_536, 3, 65_536, 0)), chunk(nbdChunk.errorOffset, 1, 2, Buffer.concat([words32(5), Buffer.from('\0\x03bad'), Buffer.alloc(8)])), simple(4, 0),
  ])],
  decode(input) {
    const requests = new Map([underWay(1, nbdCommand.read, 4096, 8192), underWay(2, nbdCommand.read, 0, 512), underWay(3, nbdCommand.blockStatus, 0, 131_072), underWay(4, nbdCommand.flush, 0, 0)].map((one) => [one.cookie, one]));
    const inlet = new NbdInlet(Math.max(optionReplyBytesMax, errorPayloadBytesMax), contentHeadBytes);
    new NbdReplyReader(inlet, {
      isStructured: true, sizeBytes: diskBytes, contexts: new Map([[7, nbdBaseAllocation]]),
      find: (cookie) => requests.get(cookie),
      done: (one) => { requests.delete(one.cookie); },
      broken: () => inlet.stop(),
    });
    // In pieces as a socket may cut them.
    for (let at = 0; at < input.length; at += 1000) inlet.push(input.subarray(at, at + 1000));
  },
};

function request(type: number, cookie: number, offset: number, length: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(nbdRequestBytes);
  encodeRequest(bytes, flags, type, cookie, offset, length);
  return bytes;
}

const clientFlags = words32(3);

function server(): Decoder {
  let folder: string | null = null;
  const faults: Fault[] = [];
  const disk = Buffer.alloc(diskBytes, 3);
  const handler: NbdHandler = {
    async write(offset, buffer, headroomBytes) { buffer.copy(disk, offset, headroomBytes); },
    async zero(offset, length) { disk.fill(0, offset, offset + length); },
    async flush() { await Promise.resolve(); },
    async read(into, offset) { disk.copy(into, 0, offset, offset + into.length); },
    async extents(offset, length) { return [{ lengthBytes: Math.min(length, diskBytes - offset), isHole: false }]; },
  };
  const starting = { server: null as ReturnType<typeof listenNbd> | null };
  return {
    name: 'nbd-server', faults: [], inputBytesMax: 128 * 1024,
    // What it has under way at once is bounded by its options; a request after the other takes its own.
    bufferBytesMax: (inputBytes) => 64 * 1024 ** 2 + 64 * inputBytes,
    words: [words32(0x25609513), encodeOption(nbdOption.list), encodeString(nbdBaseAllocation)],
    seeds: () => [
      Buffer.concat([
        clientFlags, encodeOption(nbdOption.list), encodeOption(nbdOption.structuredReply), encodeOption(nbdOption.setMetaContext, encodeMetaQuery('d', [nbdBaseAllocation])), encodeOption(nbdOption.go, encodeGo('d', [nbdInfo.name, nbdInfo.blockSize])),
        request(nbdCommand.read, 1, 0, 4096), request(nbdCommand.write, 2, 4096, 512, 1), Buffer.alloc(512, 9), request(nbdCommand.writeZeroes, 3, 0, 65_536), request(nbdCommand.trim, 4, 0, 512),
        request(nbdCommand.blockStatus, 5, 0, 131_072), request(nbdCommand.flush, 6, 0, 0), request(nbdCommand.disc, 7, 0, 0),
      ]),
      Buffer.concat([clientFlags, encodeOption(nbdOption.exportName, Buffer.from('d')), request(nbdCommand.read, 1, 512, 1024), request(nbdCommand.disc, 2, 0, 0)]),
    ],
    async decode(input) {
      folder ??= mkdtempSync(join(tmpdir(), 'afterimage-fuzz-nbd-'));
      const path = join(folder, 'nbd');
      starting.server ??= listenNbd({ path, exports: new Map([['d', { sizeBytes: diskBytes, handler }]]), requestBytesMax: 1024 ** 2, inFlightBytesMax: 4 * 1024 ** 2, onFault: (fault) => { faults.push(fault); } });
      const listening = await starting.server;
      await new Promise<void>((resolve) => {
        const socket = connect({ path }, () => { socket.end(input); });
        socket.on('error', () => undefined);
        socket.on('close', () => resolve());
        socket.resume();
      });
      const wrong = faults.splice(0).find(({ code }) => !code.startsWith('NBD_'));
      if (wrong !== undefined) throw wrong;
      const { inFlightBytesPeak } = listening.figures();
      if (inFlightBytesPeak > 4 * 1024 ** 2) throw new Error(`${inFlightBytesPeak} bytes were under way`);
    },
    async close() {
      await (await starting.server)?.close();
      if (folder !== null) rmSync(folder, { recursive: true, force: true });
    },
  };
}

export const nbdDecoders = (): readonly Decoder[] => [handshake, replies, server()];
