/**
 * What the server answers to each option of the handshake ("Option types" of the NBD protocol): a pure decision from the option
 * and what was agreed before to the replies and what follows. It knows no socket; the connection sends what comes out.
 * Invariant: transmission is entered only with an export that exists, and only after everything that the client must know.
 */
import type { NbdListing } from './nbd-handler.ts';
import {
  decodeGo, decodeMetaQuery, encodeInfoBlockSize, encodeInfoExport, encodeOptionReply, encodeString, nbdBaseAllocation, nbdFlag, nbdInfo,
  nbdOption, nbdReply, nbdStringBytesMax, writeUInt64, type NbdBlockSizes,
} from './nbd-protocol.ts';

/** What the handshake needs to know of an export. */
export interface NbdOffer {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly sizes: NbdBlockSizes;
  readonly hasExtents: boolean;
  /** Where it is not the name that was asked for. */
  readonly canonicalName?: string;
  readonly description?: string;
}

/** What else the answer to an option depends on. */
export interface NbdOptionContext {
  /** For NBD_OPT_LIST. */
  readonly listed: readonly NbdListing[];
  /** `off`: none here. `required`: FORCEDTLS, and the client is still in the clear. `on`: it has been initiated. */
  readonly tls: 'off' | 'required' | 'on';
  /** Why what was asked for is not among the offers, for a person at the other end. */
  readonly lack?: string;
}

/** What was agreed so far. */
export interface NbdAgreement {
  readonly hasNoZeroes: boolean;
  readonly isStructured: boolean;
  /** The export for which `base:allocation` was selected. */
  readonly allocationOf: string | null;
}

export type NbdOptionAnswer =
  | { readonly then: 'options' | 'close' | 'tls'; readonly replies: readonly Buffer[]; readonly agreement: NbdAgreement }
  | { readonly then: 'transmission'; readonly replies: readonly Buffer[]; readonly agreement: NbdAgreement; readonly exportName: string };

/** The only context that this server has gets this id. */
export const nbdAllocationContextId = 1;

/** The export that the option is about; null for an option about none, or malformed. */
export function exportNameOf(option: number, data: Buffer): string | null {
  switch (option) {
    case nbdOption.exportName: return data.length > nbdStringBytesMax ? null : data.toString('utf8');
    case nbdOption.info: case nbdOption.go: return decodeGo(data)?.exportName ?? null;
    case nbdOption.listMetaContext: case nbdOption.setMetaContext: return decodeMetaQuery(data)?.exportName ?? null;
    default: return null;
  }
}

export function answerOption(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>, context: NbdOptionContext): NbdOptionAnswer {
  const stay = (type: number, text = '', next = agreement): NbdOptionAnswer => (
    { then: 'options', replies: [encodeOptionReply(option, type, Buffer.from(text))], agreement: next });
  // "it MUST reply with NBD_REP_ERR_TLS_REQD if TLS has not been initiated"; NBD_OPT_EXPORT_NAME "cannot error".
  if (context.tls === 'required' && option !== nbdOption.startTls && option !== nbdOption.abort) {
    return option === nbdOption.exportName ? { then: 'close', replies: [], agreement } : stay(nbdReply.errTlsReqd, 'TLS comes first');
  }
  switch (option) {
    case nbdOption.startTls: return startTls(data, agreement, context);
    case nbdOption.exportName: return enterByName(data, agreement, offers);
    case nbdOption.abort: return { then: 'close', replies: [encodeOptionReply(option, nbdReply.ack)], agreement };
    case nbdOption.list:
      if (data.length > 0) return stay(nbdReply.errInvalid, 'NBD_OPT_LIST takes no data');
      return {
        then: 'options', agreement,
        replies: [
          // After the name, "the remaining data is a human-readable description".
          ...context.listed.map(({ name, description }) => encodeOptionReply(option, nbdReply.server, Buffer.concat([encodeString(name), Buffer.from(description ?? '')]))),
          encodeOptionReply(option, nbdReply.ack),
        ],
      };
    case nbdOption.structuredReply:
      if (data.length > 0) return stay(nbdReply.errInvalid, 'NBD_OPT_STRUCTURED_REPLY takes no data');
      return stay(nbdReply.ack, '', { ...agreement, isStructured: true });
    case nbdOption.info: case nbdOption.go: return describe(option, data, agreement, offers, context);
    case nbdOption.listMetaContext: case nbdOption.setMetaContext: return selectContexts(option, data, agreement, offers, context);
    default: return stay(nbdReply.errUnsup);
  }
}

function startTls(data: Buffer, agreement: NbdAgreement, { tls }: NbdOptionContext): NbdOptionAnswer {
  const refuse = (type: number, text: string): NbdOptionAnswer => ({ then: 'options', replies: [encodeOptionReply(nbdOption.startTls, type, Buffer.from(text))], agreement });
  if (tls === 'off') return refuse(nbdReply.errUnsup, '');
  if (tls === 'on') return refuse(nbdReply.errInvalid, 'TLS has been initiated already');
  if (data.length > 0) return refuse(nbdReply.errInvalid, 'NBD_OPT_STARTTLS takes no data');
  // "the server MUST NOT preserve any negotiation state"; the handshake flags are none.
  return { then: 'tls', replies: [encodeOptionReply(nbdOption.startTls, nbdReply.ack)], agreement: { ...agreement, isStructured: false, allocationOf: null } };
}

/** NBD_OPT_EXPORT_NAME can only succeed or end the session. */
function enterByName(data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>): NbdOptionAnswer {
  const exportName = data.length > nbdStringBytesMax ? undefined : data.toString('utf8');
  const offer = exportName === undefined ? undefined : offers.get(exportName);
  if (exportName === undefined || offer === undefined) return { then: 'close', replies: [], agreement };
  const reply = Buffer.alloc(agreement.hasNoZeroes ? 10 : 134);
  writeUInt64(reply, offer.sizeBytes, 0);
  reply.writeUInt16BE(offeredFlags(offer, agreement), 8);
  return { then: 'transmission', replies: [reply], agreement, exportName };
}

function describe(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>, { lack }: NbdOptionContext): NbdOptionAnswer {
  const asked = decodeGo(data);
  if (asked === undefined) return { then: 'options', replies: [encodeOptionReply(option, nbdReply.errInvalid, Buffer.from('malformed'))], agreement };
  const offer = offers.get(asked.exportName);
  if (offer === undefined) return { then: 'options', replies: [encodeOptionReply(option, nbdReply.errUnknown, Buffer.from(lack ?? 'no such export'))], agreement };
  const replies = [
    encodeOptionReply(option, nbdReply.info, encodeInfoExport(offer.sizeBytes, offeredFlags(offer, agreement))),
    // Also unasked: a client that ignores it gets EINVAL for what is not on its blocks.
    encodeOptionReply(option, nbdReply.info, encodeInfoBlockSize(offer.sizes)),
  ];
  if (asked.infos.includes(nbdInfo.name)) replies.push(encodeOptionReply(option, nbdReply.info, textInfo(nbdInfo.name, offer.canonicalName ?? asked.exportName)));
  if (asked.infos.includes(nbdInfo.description) && offer.description !== undefined) replies.push(encodeOptionReply(option, nbdReply.info, textInfo(nbdInfo.description, offer.description)));
  replies.push(encodeOptionReply(option, nbdReply.ack));
  return option === nbdOption.go
    ? { then: 'transmission', replies, agreement, exportName: asked.exportName }
    : { then: 'options', replies, agreement };
}

function selectContexts(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>, { lack }: NbdOptionContext): NbdOptionAnswer {
  const isSet = option === nbdOption.setMetaContext;
  // "including when this command fails": whatever was selected before is gone.
  const without = isSet ? { ...agreement, allocationOf: null } : agreement;
  const refuse = (type: number, text: string): NbdOptionAnswer => ({ then: 'options', replies: [encodeOptionReply(option, type, Buffer.from(text))], agreement: without });
  if (!agreement.isStructured) return refuse(nbdReply.errInvalid, 'structured replies come first');
  const asked = decodeMetaQuery(data);
  if (asked === undefined) return refuse(nbdReply.errInvalid, 'malformed');
  const offer = offers.get(asked.exportName);
  if (offer === undefined) return refuse(nbdReply.errUnknown, lack ?? 'no such export');
  const isWanted = asked.queries.includes(nbdBaseAllocation) || (!isSet && (asked.queries.length === 0 || asked.queries.includes('base:')));
  const isSelected = isWanted && offer.hasExtents;
  const replies = [encodeOptionReply(option, nbdReply.ack)];
  if (isSelected) {
    const context = Buffer.alloc(4 + nbdBaseAllocation.length);
    context.writeUInt32BE(isSet ? nbdAllocationContextId : 0);
    context.write(nbdBaseAllocation, 4);
    replies.unshift(encodeOptionReply(option, nbdReply.metaContext, context));
  }
  return { then: 'options', replies, agreement: isSet && isSelected ? { ...agreement, allocationOf: asked.exportName } : without };
}

/** NBD_FLAG_SEND_DF must be clear without structured replies. */
function offeredFlags(offer: NbdOffer, agreement: NbdAgreement): number {
  return agreement.isStructured ? offer.flags : offer.flags & ~nbdFlag.df;
}

function textInfo(info: number, text: string): Buffer {
  const bytes = Buffer.alloc(2 + Buffer.byteLength(text));
  bytes.writeUInt16BE(info, 0);
  bytes.write(text, 2);
  return bytes;
}
