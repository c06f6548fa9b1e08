/**
 * The replies of an NBD server: "Simple reply message" and "Structured reply chunk message". It takes them from the inlet, puts
 * their content where the request wants it, and says when a request is done. It sends nothing and ends nothing itself.
 * Invariants: no length is believed beyond what the request allows; a read is done without a failure only when every byte came once.
 */
import type { NbdCover } from './nbd-cover.ts';
import type { NbdExtent } from './nbd-extents.ts';
import type { NbdInlet } from './nbd-inlet.ts';
import {
  nbdChunk, nbdChunkErrorBit, nbdChunkFlagDone, nbdChunkMagic, nbdCommand, nbdCommandName, nbdDescriptorsMax, nbdErrorName,
  nbdSimpleReplyMagic, nbdStringBytesMax, readUInt64,
} from './nbd-protocol.ts';

export const replyHeadBytes = 16;
/** 4 bytes of length; content chunks have 8 bytes of offset behind it. */
const chunkRestBytes = 4;
/** What precedes the payload of a content chunk. */
export const contentHeadBytes = replyHeadBytes + chunkRestBytes + 8;
export const errorPayloadBytesMax = 14 + nbdStringBytesMax;

export interface NbdUnderWay {
  readonly cookie: number;
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  readonly startedMs: number;
  readonly into: Buffer | null;
  readonly intoAt: number;
  /** Of a read. */
  readonly cover: NbdCover | null;
  /** Of a block status request, by context. */
  readonly found: Map<string, readonly NbdExtent[]>;
  /** `at`: the byte of the export that failed, where the server says so. */
  failure: { readonly errno: string; readonly text: string; readonly at: number | null } | null;
  resolve(): void;
  reject(reason: Error): void;
}

export interface NbdReplyOwner {
  readonly isStructured: boolean;
  readonly sizeBytes: number;
  readonly contexts: ReadonlyMap<number, string>;
  find(cookie: number): NbdUnderWay | undefined;
  /** The request is answered; it is forgotten before this returns. */
  done(underWay: NbdUnderWay): void;
  /** The server broke the protocol: nothing more is delivered. */
  broken(what: string): void;
}

export class NbdReplyReader {
  readonly #inlet: NbdInlet;
  readonly #owner: NbdReplyOwner;

  constructor(inlet: NbdInlet, owner: NbdReplyOwner) {
    this.#inlet = inlet;
    this.#owner = owner;
    this.#expectReply();
  }

  #expectReply(): void {
    this.#inlet.expect(replyHeadBytes, (head) => {
      const magic = head.readUInt32BE(0);
      const cookie = readUInt64(head, 8);
      const underWay = this.#owner.find(cookie);
      if (magic !== nbdSimpleReplyMagic && magic !== nbdChunkMagic) return this.#owner.broken('a reply without its magic');
      if (underWay === undefined) return this.#owner.broken('a reply to nothing that was asked');
      if (magic === nbdSimpleReplyMagic) return this.#takeSimple(underWay, head.readUInt32BE(4));
      if (!this.#owner.isStructured) return this.#owner.broken('a structured reply, which was not agreed');
      this.#takeChunk(underWay, head.readUInt16BE(4), head.readUInt16BE(6));
    });
  }

  #takeSimple(underWay: NbdUnderWay, error: number): void {
    const isContent = underWay.type === nbdCommand.read || underWay.type === nbdCommand.blockStatus;
    if (isContent && this.#owner.isStructured) return this.#owner.broken(`a simple reply to ${nbdCommandName(underWay.type)}`);
    if (error !== 0) underWay.failure = { errno: nbdErrorName(error), text: '', at: null };
    if (error !== 0 || !isContent) {
      this.#owner.done(underWay);
      return this.#expectReply();
    }
    this.#inlet.fill(underWay.into!, underWay.intoAt, underWay.length, () => {
      this.#owner.done(underWay);
      this.#expectReply();
    });
  }

  #takeChunk(underWay: NbdUnderWay, flags: number, type: number): void {
    const isDone = (flags & nbdChunkFlagDone) !== 0;
    const hasOffset = type === nbdChunk.offsetData || type === nbdChunk.offsetHole;
    if (hasOffset && underWay.type !== nbdCommand.read) return this.#owner.broken(`content in reply to ${nbdCommandName(underWay.type)}`);
    this.#inlet.expect(hasOffset ? chunkRestBytes + 8 : chunkRestBytes, (rest) => {
      const bytes = rest.readUInt32BE(0);
      if (hasOffset && bytes < 9) return this.#owner.broken(`a content chunk of ${bytes} bytes`);
      const next = (): void => this.#endChunk(underWay, isDone);
      switch (type) {
        case nbdChunk.none: return bytes === 0 && isDone ? next() : this.#owner.broken('malformed NBD_REPLY_TYPE_NONE');
        case nbdChunk.offsetData: return this.#takeData(underWay, readUInt64(rest, chunkRestBytes), bytes - 8, next);
        case nbdChunk.offsetHole: return this.#takeHole(underWay, readUInt64(rest, chunkRestBytes), bytes, next);
        case nbdChunk.blockStatus: return this.#takeStatus(underWay, bytes, next);
        default: return (type & nbdChunkErrorBit) !== 0 ? this.#takeError(underWay, type, bytes, next) : this.#owner.broken(`a chunk of unknown type ${type}`);
      }
    });
  }

  #takeData(underWay: NbdUnderWay, offset: number, bytes: number, next: () => void): void {
    if (!underWay.cover!.add(offset, bytes)) return this.#owner.broken('data outside of what was asked for, or twice');
    this.#inlet.fill(underWay.into!, underWay.intoAt + offset - underWay.offset, bytes, next);
  }

  #takeHole(underWay: NbdUnderWay, offset: number, bytes: number, next: () => void): void {
    if (bytes !== 12) return this.#owner.broken(`a hole's chunk of ${bytes} bytes`);
    this.#inlet.expect(4, (head) => {
      const holeBytes = head.readUInt32BE(0);
      if (!underWay.cover!.add(offset, holeBytes)) return this.#owner.broken('a hole outside of what was asked for, or twice');
      const at = underWay.intoAt + offset - underWay.offset;
      underWay.into!.fill(0, at, at + holeBytes);
      next();
    });
  }

  #takeStatus(underWay: NbdUnderWay, bytes: number, next: () => void): void {
    if (underWay.type !== nbdCommand.blockStatus) return this.#owner.broken(`block status in reply to ${nbdCommandName(underWay.type)}`);
    if (bytes < 12 || (bytes - 4) % 8 !== 0 || bytes > 4 + 8 * nbdDescriptorsMax) return this.#owner.broken(`block status of ${bytes} bytes`);
    const payload = Buffer.allocUnsafe(bytes);
    this.#inlet.fill(payload, 0, bytes, () => {
      const context = this.#owner.contexts.get(payload.readUInt32BE(0));
      if (context === undefined || underWay.found.has(context)) return this.#owner.broken('block status of a context that was not chosen, or twice');
      const extents: NbdExtent[] = [];
      for (let at = 4, offset = underWay.offset; at < bytes && offset < this.#owner.sizeBytes; at += 8) {
        const length = payload.readUInt32BE(at);
        if (length === 0) return this.#owner.broken('an extent of no bytes');
        extents.push({ offset, length: Math.min(length, this.#owner.sizeBytes - offset), flags: payload.readUInt32BE(at + 4) });
        offset += length;
      }
      underWay.found.set(context, extents);
      next();
    });
  }

  /** Every type with the error bit begins with error, message length, message. */
  #takeError(underWay: NbdUnderWay, type: number, bytes: number, next: () => void): void {
    const fixedBytes = type === nbdChunk.errorOffset ? 14 : 6;
    if (bytes < fixedBytes || bytes > errorPayloadBytesMax) return this.#owner.broken(`an error chunk of ${bytes} bytes`);
    this.#inlet.expect(bytes, (payload) => {
      const error = payload.readUInt32BE(0);
      const textBytes = payload.readUInt16BE(4);
      if (error === 0 || textBytes > bytes - fixedBytes) return this.#owner.broken('a malformed error chunk');
      underWay.failure ??= {
        errno: nbdErrorName(error),
        text: payload.toString('utf8', 6, 6 + textBytes),
        at: type === nbdChunk.errorOffset ? readUInt64(payload, 6 + textBytes) : null,
      };
      next();
    });
  }

  #endChunk(underWay: NbdUnderWay, isDone: boolean): void {
    if (isDone) {
      const isWhole = underWay.cover?.isWhole !== false && (underWay.type !== nbdCommand.blockStatus || underWay.found.size === this.#owner.contexts.size);
      if (underWay.failure === null && !isWhole) return this.#owner.broken(`success without all of what ${nbdCommandName(underWay.type)} asked for`);
      this.#owner.done(underWay);
    }
    this.#expectReply();
  }
}
