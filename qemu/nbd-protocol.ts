/**
 * The words of the NBD protocol: constants, and encoders and decoders of its fixed pieces. The specification is
 * doc/proto.md of the NetworkBlockDevice project; section names below are its own. All numbers travel big-endian.
 * This file knows no socket and decides nothing; whoever decodes checks magic and bounds with what is offered here.
 */

/** "Newstyle negotiation": what the server says first. */
export const nbdMagic = 0x4e42444d41474943n;
/** "IHAVEOPT": the second word of a newstyle greeting, and the first of each option. */
export const nbdOptionMagic = 0x49484156454f5054n;
/** The second word of the oldstyle greeting, which is only recognised to be refused by name. */
export const nbdOldstyleMagic = 0x00420281861253n;
/** "Fixed newstyle negotiation": the first word of each reply to an option. */
export const nbdOptionReplyMagic = 0x0003e889045565a9n;
/** "Request message". */
export const nbdRequestMagic = 0x25609513;
/** "Simple reply message". */
export const nbdSimpleReplyMagic = 0x67446698;
/** "Structured reply chunk message". */
export const nbdChunkMagic = 0x668e33ef;

export const nbdGreetingBytes = 18;
export const nbdOptionHeaderBytes = 16;
export const nbdOptionReplyHeaderBytes = 20;
export const nbdRequestBytes = 28;
export const nbdSimpleReplyBytes = 16;
export const nbdChunkHeaderBytes = 20;

/** "Conventions": no string is longer. */
export const nbdStringBytesMax = 4096;
/** "Size constraints": the payload that every server should take, and the largest that nobody may call an attack. */
export const nbdPayloadBytesDefault = 32 * 1024 * 1024;
/** "Request types", NBD_CMD_BLOCK_STATUS: no server should send more descriptors in one chunk. */
export const nbdDescriptorsMax = 1024 * 1024;
/** Lengths of requests have 32 bits. */
export const nbdLengthMax = 0xffffffff;

/** "Handshake flags" and "Client flags": the same bits in both. */
export const nbdHandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** "Transmission flags". */
export const nbdFlag = {
  hasFlags: 1 << 0, readOnly: 1 << 1, flush: 1 << 2, fua: 1 << 3, rotational: 1 << 4, trim: 1 << 5, writeZeroes: 1 << 6,
  df: 1 << 7, multiConn: 1 << 8, resize: 1 << 9, cache: 1 << 10, fastZero: 1 << 11,
} as const;

/** "Option types". */
export const nbdOption = {
  exportName: 1, abort: 2, list: 3, startTls: 5, info: 6, go: 7, structuredReply: 8, listMetaContext: 9, setMetaContext: 10, extendedHeaders: 11,
} as const;

/** "Option reply types". All errors have bit 31. */
export const nbdReply = {
  ack: 1, server: 2, info: 3, metaContext: 4,
  errUnsup: 0x80000001, errPolicy: 0x80000002, errInvalid: 0x80000003, errPlatform: 0x80000004, errTlsReqd: 0x80000005,
  errUnknown: 0x80000006, errShutdown: 0x80000007, errBlockSizeReqd: 0x80000008, errTooBig: 0x80000009, errExtHeaderReqd: 0x8000000a,
} as const;

/** "Option reply types", NBD_REP_INFO. */
export const nbdInfo = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** "Request types". */
export const nbdCommand = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, writeZeroes: 6, blockStatus: 7 } as const;

/** "Command flags". */
export const nbdCommandFlag = { fua: 1 << 0, noHole: 1 << 1, df: 1 << 2, reqOne: 1 << 3, fastZero: 1 << 4 } as const;

/** "Structured reply types". Error chunks have bit 15. */
export const nbdChunk = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, error: 0x8001, errorOffset: 0x8002 } as const;
export const nbdChunkErrorBit = 0x8000;
/** "Structured reply flags". */
export const nbdChunkFlagDone = 1;

/** "Error values". */
export const nbdError = { perm: 1, io: 5, nomem: 12, inval: 22, nospc: 28, overflow: 75, notsup: 95, shutdown: 108 } as const;
const errorNames: Readonly<Record<number, string>> = { 1: 'EPERM', 5: 'EIO', 12: 'ENOMEM', 22: 'EINVAL', 28: 'ENOSPC', 75: 'EOVERFLOW', 95: 'ENOTSUP', 108: 'ESHUTDOWN' };

/** "The client SHOULD treat an unexpected error value as if it had been NBD_EINVAL". */
export function nbdErrorName(error: number): string {
  return errorNames[error] ?? 'EINVAL';
}

/** "`base:allocation` metadata context". */
export const nbdBaseAllocation = 'base:allocation';
export const nbdState = { hole: 1, zero: 2 } as const;
/** QEMU's docs/interop/nbd.txt, "qemu:dirty-bitmap:NAME": bit 0 is set where the bitmap is. */
export const nbdStateDirty = 1;

const optionNames = invert(nbdOption);
const replyNames = invert(nbdReply);
const commandNames = invert(nbdCommand);
export function nbdOptionName(option: number): string { return optionNames.get(option) ?? `option ${option}`; }
export function nbdCommandName(type: number): string { return commandNames.get(type) ?? `command ${type}`; }
export function nbdReplyName(type: number): string { return replyNames.get(type) ?? `0x${type.toString(16)}`; }

function invert(table: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(table).map(([name, value]) => [value, name]));
}

/** "Request message". `cookie` is opaque to the server and comes back in the reply. */
export interface NbdRequest {
  readonly flags: number;
  readonly type: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Infinity when it is beyond what a JavaScript number counts exactly; no disk is that large. */
  readonly offset: number;
  readonly length: number;
}

export function encodeRequest(into: Buffer, flags: number, type: number, cookie: number, offset: number, length: number): void {
  into.writeUInt32BE(nbdRequestMagic, 0);
  into.writeUInt16BE(flags, 4);
  into.writeUInt16BE(type, 6);
  writeUInt64(into, cookie, 8);
  writeUInt64(into, offset, 16);
  into.writeUInt32BE(length, 24);
}

/** Undefined when the magic is wrong. */
export function decodeRequest(bytes: Buffer): NbdRequest | undefined {
  if (bytes.readUInt32BE(0) !== nbdRequestMagic) return undefined;
  return {
    flags: bytes.readUInt16BE(4), type: bytes.readUInt16BE(6), cookieHigh: bytes.readUInt32BE(8), cookieLow: bytes.readUInt32BE(12),
    offset: readUInt64(bytes, 16), length: bytes.readUInt32BE(24),
  };
}

export function encodeSimpleReply(into: Buffer, at: number, error: number, request: NbdRequest): void {
  into.writeUInt32BE(nbdSimpleReplyMagic, at);
  into.writeUInt32BE(error, at + 4);
  into.writeUInt32BE(request.cookieHigh, at + 8);
  into.writeUInt32BE(request.cookieLow, at + 12);
}

export function encodeChunkHeader(into: Buffer, at: number, flags: number, type: number, request: NbdRequest, length: number): void {
  into.writeUInt32BE(nbdChunkMagic, at);
  into.writeUInt16BE(flags, at + 4);
  into.writeUInt16BE(type, at + 6);
  into.writeUInt32BE(request.cookieHigh, at + 8);
  into.writeUInt32BE(request.cookieLow, at + 12);
  into.writeUInt32BE(length, at + 16);
}

/** The generic format of an option. */
export function encodeOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(nbdOptionHeaderBytes + data.length);
  bytes.writeBigUInt64BE(nbdOptionMagic, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.length, 12);
  data.copy(bytes, nbdOptionHeaderBytes);
  return bytes;
}

export function encodeOptionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(nbdOptionReplyHeaderBytes + data.length);
  bytes.writeBigUInt64BE(nbdOptionReplyMagic, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  data.copy(bytes, nbdOptionReplyHeaderBytes);
  return bytes;
}

/** Data of NBD_OPT_GO and NBD_OPT_INFO. */
export function encodeGo(exportName: string, infos: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 + 2 * infos.length);
  bytes.writeUInt16BE(infos.length, 0);
  infos.forEach((info, i) => bytes.writeUInt16BE(info, 2 + 2 * i));
  return Buffer.concat([encodeString(exportName), bytes]);
}

/** Undefined when the data is malformed. */
export function decodeGo(data: Buffer): { readonly exportName: string; readonly infos: readonly number[] } | undefined {
  const name = decodeString(data, 0);
  if (name === undefined || data.length < name.next + 2) return undefined;
  const count = data.readUInt16BE(name.next);
  if (data.length !== name.next + 2 + 2 * count) return undefined;
  return { exportName: name.value, infos: Array.from({ length: count }, (_, i) => data.readUInt16BE(name.next + 2 + 2 * i)) };
}

/** Data of NBD_OPT_SET_META_CONTEXT and NBD_OPT_LIST_META_CONTEXT. */
export function encodeMetaQuery(exportName: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([encodeString(exportName), count, ...queries.map(encodeString)]);
}

export function decodeMetaQuery(data: Buffer): { readonly exportName: string; readonly queries: readonly string[] } | undefined {
  const name = decodeString(data, 0);
  if (name === undefined || data.length < name.next + 4) return undefined;
  const count = data.readUInt32BE(name.next);
  const queries: string[] = [];
  let at = name.next + 4;
  while (queries.length < count) {
    const query = decodeString(data, at);
    if (query === undefined) return undefined;
    queries.push(query.value);
    at = query.next;
  }
  return at === data.length ? { exportName: name.value, queries } : undefined;
}

/** A string as it stands within option data: 32 bits of length, then its UTF-8 bytes. */
export function encodeString(value: string): Buffer {
  const bytes = Buffer.alloc(4 + Buffer.byteLength(value));
  bytes.writeUInt32BE(bytes.length - 4);
  bytes.write(value, 4);
  return bytes;
}

function decodeString(data: Buffer, at: number): { readonly value: string; readonly next: number } | undefined {
  if (data.length < at + 4) return undefined;
  const length = data.readUInt32BE(at);
  if (length > nbdStringBytesMax || data.length < at + 4 + length) return undefined;
  return { value: data.toString('utf8', at + 4, at + 4 + length), next: at + 4 + length };
}

/** "Size constraints", bytes. */
export interface NbdBlockSizes {
  readonly minimumBytes: number;
  readonly preferredBytes: number;
  readonly payloadBytesMax: number;
}

/** What holds when the server says nothing. */
export const nbdBlockSizesDefault: NbdBlockSizes = { minimumBytes: 1, preferredBytes: 4096, payloadBytesMax: nbdPayloadBytesDefault };

export function encodeInfoExport(sizeBytes: number, flags: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt16BE(nbdInfo.export, 0);
  writeUInt64(bytes, sizeBytes, 2);
  bytes.writeUInt16BE(flags, 10);
  return bytes;
}

export function encodeInfoBlockSize(sizes: NbdBlockSizes): Buffer {
  const bytes = Buffer.alloc(14);
  bytes.writeUInt16BE(nbdInfo.blockSize, 0);
  bytes.writeUInt32BE(sizes.minimumBytes, 2);
  bytes.writeUInt32BE(sizes.preferredBytes, 6);
  bytes.writeUInt32BE(sizes.payloadBytesMax, 10);
  return bytes;
}

/** Undefined when the sizes break the rules of "Size constraints". */
export function decodeInfoBlockSize(data: Buffer): NbdBlockSizes | undefined {
  if (data.length !== 14) return undefined;
  const sizes = { minimumBytes: data.readUInt32BE(2), preferredBytes: data.readUInt32BE(6), payloadBytesMax: data.readUInt32BE(10) };
  const isSound = isPowerOfTwo(sizes.minimumBytes) && sizes.minimumBytes <= 65536 && isPowerOfTwo(sizes.preferredBytes)
    && sizes.preferredBytes >= sizes.minimumBytes && sizes.payloadBytesMax >= sizes.minimumBytes;
  return isSound ? sizes : undefined;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

/** A safe integer as 64 bits, without a BigInt on the hot path. */
export function writeUInt64(into: Buffer, value: number, at: number): void {
  into.writeUInt32BE(Math.floor(value / 0x100000000), at);
  into.writeUInt32BE(value % 0x100000000, at + 4);
}

/** Infinity when the value is beyond the safe integers: it then fails every check against a size. */
export function readUInt64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32BE(at) * 0x100000000 + bytes.readUInt32BE(at + 4);
  return Number.isSafeInteger(value) ? value : Infinity;
}
