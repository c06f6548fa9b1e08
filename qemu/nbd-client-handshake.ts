/**
 * The client's side of the handshake ("Fixed newstyle negotiation" of the NBD protocol), up to and with NBD_OPT_GO. There is no
 * fallback to older ways in: every server that we speak to has these. It reads through `take` and writes through `send`, and
 * knows no socket. Invariant: each length that the server announces is checked before it is taken.
 */
import { Fault } from '../journal/fault.ts';
import {
  decodeInfoBlockSize, encodeGo, encodeMetaQuery, encodeOption, nbdBlockSizesDefault, nbdFlag, nbdGreetingBytes, nbdHandshakeFlag, nbdInfo,
  nbdMagic, nbdOldstyleMagic, nbdOption, nbdOptionMagic, nbdOptionName, nbdOptionReplyHeaderBytes, nbdOptionReplyMagic, nbdReply, nbdReplyName,
  nbdStringBytesMax, readUInt64, type NbdBlockSizes,
} from './nbd-protocol.ts';

/** The longest reply that we ask for is a context's name; errors may carry a message. */
export const optionReplyBytesMax = 4 + nbdStringBytesMax;
/** Replies to one option: contexts that we asked for, or facts about one export. */
const repliesMax = 1024;

export interface NbdHandshake {
  /** Exactly so many bytes, as a copy. */
  take(bytes: number): Promise<Buffer>;
  send(bytes: Buffer): void;
  readonly exportName: string;
  readonly metaContexts: readonly string[];
  /** For messages. */
  readonly path: string;
}

export interface NbdEntered {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly sizes: NbdBlockSizes;
  readonly isStructured: boolean;
  /** Name of each context by its id. */
  readonly contexts: ReadonlyMap<number, string>;
}

interface OptionReply { readonly type: number; readonly data: Buffer }

/** Faults: NBD_PROTOCOL; NBD_REFUSED (facts: option, reply). */
export async function enterExport(handshake: NbdHandshake): Promise<NbdEntered> {
  await greet(handshake);
  const isStructured = await agreeStructured(handshake);
  const contexts = handshake.metaContexts.length === 0 ? new Map<number, string>() : await selectContexts(handshake, isStructured);
  return { ...await go(handshake), isStructured, contexts };
}

async function greet({ take, send, path }: NbdHandshake): Promise<void> {
  const greeting = await take(nbdGreetingBytes);
  if (greeting.readBigUInt64BE(0) !== nbdMagic) throw broken(path, 'its greeting is no NBD');
  const kind = greeting.readBigUInt64BE(8);
  if (kind === nbdOldstyleMagic) throw new Fault('NBD_REFUSED', `${path} speaks only the oldstyle handshake of NBD`, { path });
  if (kind !== nbdOptionMagic) throw broken(path, 'its greeting is no NBD');
  const flags = greeting.readUInt16BE(16);
  if ((flags & nbdHandshakeFlag.fixedNewstyle) === 0) throw new Fault('NBD_REFUSED', `${path} does not speak the fixed newstyle handshake of NBD`, { path });
  const answer = Buffer.alloc(4);
  answer.writeUInt32BE(flags & (nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes));
  send(answer);
}

/** Servers without it answer with an error, and then reads come in simple replies. */
async function agreeStructured(handshake: NbdHandshake): Promise<boolean> {
  handshake.send(encodeOption(nbdOption.structuredReply));
  const replies = await takeReplies(handshake, nbdOption.structuredReply);
  return replies.at(-1)!.type === nbdReply.ack;
}

async function selectContexts(handshake: NbdHandshake, isStructured: boolean): Promise<ReadonlyMap<number, string>> {
  const { path, exportName, metaContexts } = handshake;
  if (!isStructured) throw new Fault('NBD_REFUSED', `${path} has no structured replies, so it cannot tell about ${metaContexts.join(', ')}`, { path, option: 'structuredReply' });
  handshake.send(encodeOption(nbdOption.setMetaContext, encodeMetaQuery(exportName, metaContexts)));
  const contexts = new Map<number, string>();
  for (const { type, data } of accepted(handshake, nbdOption.setMetaContext, await takeReplies(handshake, nbdOption.setMetaContext))) {
    if (type !== nbdReply.metaContext) continue;
    if (data.length < 5) throw broken(path, 'a metadata context without a name');
    const name = data.toString('utf8', 4);
    // "qemu:allocation-depth" and the like are asked for by their full names: what else comes is not ours.
    if (!metaContexts.includes(name) || contexts.has(data.readUInt32BE(0)) || [...contexts.values()].includes(name)) throw broken(path, 'a metadata context that was not asked for, or twice');
    contexts.set(data.readUInt32BE(0), name);
  }
  const missing = metaContexts.filter((name) => ![...contexts.values()].includes(name));
  if (missing.length > 0) throw new Fault('NBD_REFUSED', `${path} has no ${missing.join(', ')} for export "${exportName}"`, { path, exportName, option: 'setMetaContext', missing });
  return contexts;
}

async function go(handshake: NbdHandshake): Promise<Pick<NbdEntered, 'sizeBytes' | 'flags' | 'sizes'>> {
  const { path, exportName } = handshake;
  handshake.send(encodeOption(nbdOption.go, encodeGo(exportName, [nbdInfo.export, nbdInfo.blockSize])));
  let size: { sizeBytes: number; flags: number } | null = null;
  let sizes = nbdBlockSizesDefault;
  for (const { type, data } of accepted(handshake, nbdOption.go, await takeReplies(handshake, nbdOption.go))) {
    if (type !== nbdReply.info) continue;
    if (data.length < 2) throw broken(path, 'information without a type');
    switch (data.readUInt16BE(0)) {
      case nbdInfo.export:
        if (data.length !== 12) throw broken(path, 'malformed NBD_INFO_EXPORT');
        size = { sizeBytes: readUInt64(data, 2), flags: data.readUInt16BE(10) };
        break;
      case nbdInfo.blockSize: {
        const decoded = decodeInfoBlockSize(data);
        if (decoded === undefined) throw broken(path, 'impossible block sizes');
        sizes = decoded;
        break;
      }
      default: // "The client MUST ignore information replies it does not understand."
    }
  }
  if (size === null || !Number.isSafeInteger(size.sizeBytes) || (size.flags & nbdFlag.hasFlags) === 0) throw broken(path, `no sound description of export "${exportName}"`);
  return { ...size, sizes };
}

/** All replies to one option; the last one is an acknowledgement or an error. */
async function takeReplies({ take, path }: NbdHandshake, option: number): Promise<readonly OptionReply[]> {
  const replies: OptionReply[] = [];
  for (;;) {
    const head = await take(nbdOptionReplyHeaderBytes);
    if (head.readBigUInt64BE(0) !== nbdOptionReplyMagic) throw broken(path, 'an option reply without its magic');
    if (head.readUInt32BE(8) !== option) throw broken(path, `a reply to ${nbdOptionName(head.readUInt32BE(8))}, which was not asked`);
    const type = head.readUInt32BE(12);
    const dataBytes = head.readUInt32BE(16);
    if (dataBytes > optionReplyBytesMax) throw broken(path, `an option reply of ${dataBytes} bytes`);
    replies.push({ type, data: await take(dataBytes) });
    if (type === nbdReply.ack || type >= 0x80000000) return replies;
    if (replies.length >= repliesMax) throw broken(path, `more than ${repliesMax} replies to ${nbdOptionName(option)}`);
  }
}

function accepted({ path, exportName }: NbdHandshake, option: number, replies: readonly OptionReply[]): readonly OptionReply[] {
  const last = replies.at(-1)!;
  if (last.type === nbdReply.ack) return replies;
  const name = nbdOptionName(option);
  const reply = nbdReplyName(last.type);
  const text = last.data.toString('utf8');
  throw new Fault('NBD_REFUSED', `${path} refused ${name} for export "${exportName}": ${text === '' ? reply : text}`, { path, exportName, option: name, reply, text });
}

function broken(path: string, what: string): Fault {
  return new Fault('NBD_PROTOCOL', `${path} broke the NBD protocol: ${what}`, { path });
}
