/**
 * The server's side of the handshake ("Fixed newstyle negotiation" of the NBD protocol): greets, and haggles until the client has
 * chosen an export, leaves, or breaks the rules. What is answered is decided in nbd-option-plan.ts; what comes after is not its
 * business, nor is what TLS does to the socket. Invariants: a client gets through a bounded number of options of bounded length
 * before it must have chosen; it has at most one lease of an export, and none once it has ended.
 */
import assert from 'node:assert/strict';
import { isFault } from '../journal/fault.ts';
import { sectorBytes } from '../journal/limits.ts';
import type { NbdExport, NbdExportSource, NbdLease, NbdListing } from './nbd-handler.ts';
import type { NbdInlet } from './nbd-inlet.ts';
import { answerOption, exportNameOf, type NbdAgreement, type NbdOffer, type NbdOptionContext } from './nbd-option-plan.ts';
import {
  encodeOptionReply, nbdFlag, nbdGreetingBytes, nbdHandshakeFlag, nbdMagic, nbdOption, nbdOptionHeaderBytes, nbdOptionMagic, nbdPayloadBytesDefault, nbdReply,
} from './nbd-protocol.ts';

/** The longest option data that makes sense: an export's name and two context queries of full length. */
export const optionBytesMax = 16 * 1024;
/** A client that haggles longer than this wants something else. */
const optionsMax = 64;
/** Larger than a sector because QEMU's jobs work on 64 KiB and more anyway. */
const preferredBytes = 64 * 1024;
/** Of the text beside an error: for a person, and no string of the protocol is longer than 4096. */
const lackLengthMax = 500;

export interface NbdEntry {
  readonly exports: ReadonlyMap<string, NbdExport> | NbdExportSource;
  readonly requestBytesMax: number;
  readonly isTlsRequired: boolean;
  send(bytes: Buffer): void;
  /** Between these nothing is delivered by the inlet. */
  pause(): void;
  resume(): void;
  /** Sends the reply and puts the connection under TLS; {@link NbdHandshake.goOn} follows. */
  secure(reply: Buffer): void;
  /** Exactly one of these is called, and the inlet is then without an order. The lease is the callee's. */
  entered(exportName: string, lease: NbdLease, agreement: NbdAgreement): void;
  left(): void;
  broken(what: string): void;
}

interface Found { readonly offers: ReadonlyMap<string, NbdOffer>; readonly listed: readonly NbdListing[]; readonly lack?: string }
const nothing: Found = { offers: new Map(), listed: [] };

export class NbdHandshake {
  readonly #entry: NbdEntry;
  #inlet: NbdInlet;
  #tls: NbdOptionContext['tls'];
  #agreement: NbdAgreement = { hasNoZeroes: false, isStructured: false, allocationOf: null };
  #optionCount = 0;
  #leased: { readonly name: string; readonly lease: NbdLease } | null = null;
  #isOver = false;

  constructor(inlet: NbdInlet, entry: NbdEntry) {
    this.#entry = entry;
    this.#inlet = inlet;
    this.#tls = entry.isTlsRequired ? 'required' : 'off';
    const greeting = Buffer.alloc(nbdGreetingBytes);
    greeting.writeBigUInt64BE(nbdMagic, 0);
    greeting.writeBigUInt64BE(nbdOptionMagic, 8);
    greeting.writeUInt16BE(nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes, 16);
    entry.send(greeting);
    inlet.expect(4, (head) => {
      const flags = head.readUInt32BE(0);
      if ((flags & ~(nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes)) !== 0) return entry.broken(`unknown client flags 0x${flags.toString(16)}`);
      // "The server MUST operate in NOTLS mode unless … the client replied with NBD_FLAG_C_FIXED_NEWSTYLE": what is for TLS alone is then for nobody.
      if (this.#tls === 'required' && (flags & nbdHandshakeFlag.fixedNewstyle) === 0) return entry.broken('a client that cannot initiate TLS');
      this.#agreement = { ...this.#agreement, hasNoZeroes: (flags & nbdHandshakeFlag.noZeroes) !== 0 };
      this.#expectOption();
    });
  }

  /** TLS stands; what the client says now comes through this inlet. */
  goOn(inlet: NbdInlet): void {
    this.#inlet = inlet;
    this.#tls = 'on';
    this.#expectOption();
  }

  /** The connection has ended, or is beyond the handshake. */
  end(): void {
    this.#isOver = true;
    this.#drop();
  }

  #expectOption(): void {
    this.#optionCount += 1;
    if (this.#optionCount > optionsMax) return this.#entry.broken(`more than ${optionsMax} options`);
    this.#inlet.expect(nbdOptionHeaderBytes, (head) => {
      if (head.readBigUInt64BE(0) !== nbdOptionMagic) return this.#entry.broken('an option without its magic');
      const option = head.readUInt32BE(8);
      const dataBytes = head.readUInt32BE(12);
      if (dataBytes > optionBytesMax) return this.#passOver(option, dataBytes);
      this.#inlet.expect(dataBytes, (data) => this.#weigh(option, data));
    });
  }

  /** NBD_REP_ERR_TOO_BIG; beyond what could be meant it is an attack. */
  #passOver(option: number, dataBytes: number): void {
    if (dataBytes > nbdPayloadBytesDefault || option === nbdOption.exportName) return this.#entry.broken(`an option of ${dataBytes} bytes`);
    this.#inlet.skip(dataBytes, () => {
      this.#entry.send(encodeOptionReply(option, this.#tls === 'required' && option !== nbdOption.startTls ? nbdReply.errTlsReqd : nbdReply.errTooBig));
      this.#expectOption();
    });
  }

  #weigh(option: number, data: Buffer): void {
    const { exports } = this.#entry;
    if (this.#tls === 'required') return this.#answer(option, data, nothing);
    if (!isSource(exports)) return this.#answer(option, data, { offers: offersOf(exports, this.#entry.requestBytesMax), listed: [...exports].map(([name, { description }]) => listing(name, description)) });
    const name = exportNameOf(option, data);
    const isList = option === nbdOption.list && data.length === 0;
    if (name === null && !isList) return this.#answer(option, data, nothing);
    // The data is valid in this call only.
    const kept = Buffer.from(data);
    this.#entry.pause();
    void (isList ? this.#list(exports) : this.#lease(exports, name!)).then((found) => {
      if (this.#isOver) return this.#drop();
      this.#answer(option, kept, found);
      this.#entry.resume();
    });
  }

  async #list(exports: NbdExportSource): Promise<Found> {
    try {
      return { offers: new Map(), listed: await exports.list() };
    } catch (error) {
      // The list is for orientation; what is wrong is told to whoever asks for an export.
      if (!isFault(error)) throw error;
      return nothing;
    }
  }

  async #lease(exports: NbdExportSource, name: string): Promise<Found> {
    if (this.#leased?.name !== name) {
      this.#drop();
      try {
        this.#leased = { name, lease: await exports.open(name) };
      } catch (error) {
        if (!isFault(error)) throw error;
        return { ...nothing, lack: error.message.slice(0, lackLengthMax) };
      }
    }
    return { offers: offersOf(new Map([[name, this.#leased.lease.export]]), this.#entry.requestBytesMax), listed: [] };
  }

  #answer(option: number, data: Buffer, { offers, listed, lack }: Found): void {
    const answer = answerOption(option, data, this.#agreement, offers, { listed, tls: this.#tls, ...(lack === undefined ? {} : { lack }) });
    this.#agreement = answer.agreement;
    if (answer.then === 'tls') {
      assert(answer.replies.length === 1);
      return this.#entry.secure(answer.replies[0]!);
    }
    for (const reply of answer.replies) this.#entry.send(reply);
    if (answer.then === 'transmission') return this.#enter(answer.exportName);
    return answer.then === 'options' ? this.#expectOption() : this.#entry.left();
  }

  #enter(exportName: string): void {
    const { exports } = this.#entry;
    const leased = this.#leased;
    this.#leased = null;
    this.#isOver = true;
    if (isSource(exports)) {
      assert(leased?.name === exportName);
      return this.#entry.entered(exportName, leased.lease, this.#agreement);
    }
    const chosen = exports.get(exportName);
    assert(chosen !== undefined);
    this.#entry.entered(exportName, { export: chosen, release: () => undefined }, this.#agreement);
  }

  #drop(): void {
    this.#leased?.lease.release();
    this.#leased = null;
  }
}

function isSource(exports: NbdEntry['exports']): exports is NbdExportSource {
  return 'open' in exports;
}

function listing(name: string, description: string | undefined): NbdListing {
  return description === undefined ? { name } : { name, description };
}

function offersOf(exports: ReadonlyMap<string, NbdExport>, requestBytesMax: number): ReadonlyMap<string, NbdOffer> {
  return new Map([...exports].map(([name, { sizeBytes, handler, minimumBytes = sectorBytes, isSameForAll = handler.write === undefined, canonicalName, description }]) => {
    const flags = nbdFlag.hasFlags | nbdFlag.flush | nbdFlag.fua
      | (handler.write === undefined ? nbdFlag.readOnly : 0)
      // A read-only export looks the same through every connection, unless its name means something else to the next one.
      | (isSameForAll ? nbdFlag.multiConn : 0)
      | (handler.zero === undefined ? 0 : nbdFlag.writeZeroes | nbdFlag.fastZero | nbdFlag.trim)
      | (handler.read === undefined ? 0 : nbdFlag.df);
    const offer: NbdOffer = {
      sizeBytes, flags, sizes: { minimumBytes, preferredBytes, payloadBytesMax: requestBytesMax }, hasExtents: handler.extents !== undefined,
      ...(canonicalName === undefined ? {} : { canonicalName }), ...(description === undefined ? {} : { description }),
    };
    return [name, offer];
  }));
}
