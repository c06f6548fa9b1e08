/**
 * What the server answers to each option of the handshake ("Option types" of the NBD protocol): a pure decision from the option
 * and what was agreed before to the replies and what follows. It knows no socket; the connection sends what comes out.
 * Invariant: transmission is entered only with an export that exists, and only after everything that the client must know.
 */
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
}

/** What was agreed so far. */
export interface NbdAgreement {
  readonly hasNoZeroes: boolean;
  readonly isStructured: boolean;
  /** The export for which `base:allocation` was selected. */
  readonly allocationOf: string | null;
}

export type NbdOptionAnswer =
  | { readonly then: 'options' | 'close'; readonly replies: readonly Buffer[]; readonly agreement: NbdAgreement }
  | { readonly then: 'transmission'; readonly replies: readonly Buffer[]; readonly agreement: NbdAgreement; readonly exportName: string };

/** The only context that this server has gets this id. */
export const nbdAllocationContextId = 1;

export function answerOption(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>): NbdOptionAnswer {
  const stay = (type: number, text = '', next = agreement): NbdOptionAnswer => (
    { then: 'options', replies: [encodeOptionReply(option, type, Buffer.from(text))], agreement: next });
  switch (option) {
    case nbdOption.exportName: return enterByName(data, agreement, offers);
    case nbdOption.abort: return { then: 'close', replies: [encodeOptionReply(option, nbdReply.ack)], agreement };
    case nbdOption.list:
      if (data.length > 0) return stay(nbdReply.errInvalid, 'NBD_OPT_LIST takes no data');
      return {
        then: 'options', agreement,
        replies: [...[...offers.keys()].map((name) => encodeOptionReply(option, nbdReply.server, encodeString(name))), encodeOptionReply(option, nbdReply.ack)],
      };
    case nbdOption.structuredReply:
      if (data.length > 0) return stay(nbdReply.errInvalid, 'NBD_OPT_STRUCTURED_REPLY takes no data');
      return stay(nbdReply.ack, '', { ...agreement, isStructured: true });
    case nbdOption.info: case nbdOption.go: return describe(option, data, agreement, offers);
    case nbdOption.listMetaContext: case nbdOption.setMetaContext: return selectContexts(option, data, agreement, offers);
    default: return stay(nbdReply.errUnsup);
  }
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

function describe(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>): NbdOptionAnswer {
  const asked = decodeGo(data);
  if (asked === undefined) return { then: 'options', replies: [encodeOptionReply(option, nbdReply.errInvalid, Buffer.from('malformed'))], agreement };
  const offer = offers.get(asked.exportName);
  if (offer === undefined) return { then: 'options', replies: [encodeOptionReply(option, nbdReply.errUnknown, Buffer.from('no such export'))], agreement };
  const replies = [
    encodeOptionReply(option, nbdReply.info, encodeInfoExport(offer.sizeBytes, offeredFlags(offer, agreement))),
    // Also unasked: a client that ignores it gets EINVAL for what is not on its blocks.
    encodeOptionReply(option, nbdReply.info, encodeInfoBlockSize(offer.sizes)),
  ];
  if (asked.infos.includes(nbdInfo.name)) replies.push(encodeOptionReply(option, nbdReply.info, nameInfo(asked.exportName)));
  replies.push(encodeOptionReply(option, nbdReply.ack));
  return option === nbdOption.go
    ? { then: 'transmission', replies, agreement, exportName: asked.exportName }
    : { then: 'options', replies, agreement };
}

function selectContexts(option: number, data: Buffer, agreement: NbdAgreement, offers: ReadonlyMap<string, NbdOffer>): NbdOptionAnswer {
  const isSet = option === nbdOption.setMetaContext;
  // "including when this command fails": whatever was selected before is gone.
  const without = isSet ? { ...agreement, allocationOf: null } : agreement;
  const refuse = (type: number, text: string): NbdOptionAnswer => ({ then: 'options', replies: [encodeOptionReply(option, type, Buffer.from(text))], agreement: without });
  if (!agreement.isStructured) return refuse(nbdReply.errInvalid, 'structured replies come first');
  const asked = decodeMetaQuery(data);
  if (asked === undefined) return refuse(nbdReply.errInvalid, 'malformed');
  const offer = offers.get(asked.exportName);
  if (offer === undefined) return refuse(nbdReply.errUnknown, 'no such export');
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

function nameInfo(exportName: string): Buffer {
  const bytes = Buffer.alloc(2 + Buffer.byteLength(exportName));
  bytes.writeUInt16BE(nbdInfo.name, 0);
  bytes.write(exportName, 2);
  return bytes;
}
