/**
 * The server's side of the handshake ("Fixed newstyle negotiation" of the NBD protocol): greets, and haggles until the client has
 * chosen an export, leaves, or breaks the rules. What is answered is decided in nbd-option-plan.ts; what comes after is not its
 * business. Invariant: a client gets through a bounded number of options of bounded length before it must have chosen.
 */
import assert from 'node:assert/strict';
import { sectorBytes } from '../journal/limits.ts';
import type { NbdExport } from './nbd-handler.ts';
import type { NbdInlet } from './nbd-inlet.ts';
import { answerOption, type NbdAgreement, type NbdOffer } from './nbd-option-plan.ts';
import { nbdFlag, nbdGreetingBytes, nbdHandshakeFlag, nbdMagic, nbdOptionHeaderBytes, nbdOptionMagic } from './nbd-protocol.ts';

/** The longest option data that makes sense: an export's name and two context queries of full length. */
export const optionBytesMax = 16 * 1024;
/** A client that haggles longer than this wants something else. */
const optionsMax = 64;
/** Larger than a sector because QEMU's jobs work on 64 KiB and more anyway. */
const preferredBytes = 64 * 1024;

export interface NbdEntry {
  readonly inlet: NbdInlet;
  readonly exports: ReadonlyMap<string, NbdExport>;
  readonly requestBytesMax: number;
  send(bytes: Buffer): void;
  /** Exactly one of these is called, and the inlet is then without an order. */
  entered(exportName: string, chosen: NbdExport, agreement: NbdAgreement): void;
  left(): void;
  broken(what: string): void;
}

export function letEnter(entry: NbdEntry): void {
  const greeting = Buffer.alloc(nbdGreetingBytes);
  greeting.writeBigUInt64BE(nbdMagic, 0);
  greeting.writeBigUInt64BE(nbdOptionMagic, 8);
  greeting.writeUInt16BE(nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes, 16);
  entry.send(greeting);
  entry.inlet.expect(4, (head) => {
    const flags = head.readUInt32BE(0);
    if ((flags & ~(nbdHandshakeFlag.fixedNewstyle | nbdHandshakeFlag.noZeroes)) !== 0) return entry.broken(`unknown client flags 0x${flags.toString(16)}`);
    expectOption(entry, { hasNoZeroes: (flags & nbdHandshakeFlag.noZeroes) !== 0, isStructured: false, allocationOf: null }, 1);
  });
}

function expectOption(entry: NbdEntry, agreement: NbdAgreement, optionCount: number): void {
  if (optionCount > optionsMax) return entry.broken(`more than ${optionsMax} options`);
  entry.inlet.expect(nbdOptionHeaderBytes, (head) => {
    if (head.readBigUInt64BE(0) !== nbdOptionMagic) return entry.broken('an option without its magic');
    const option = head.readUInt32BE(8);
    const dataBytes = head.readUInt32BE(12);
    if (dataBytes > optionBytesMax) return entry.broken(`an option of ${dataBytes} bytes`);
    entry.inlet.expect(dataBytes, (data) => {
      const answer = answerOption(option, data, agreement, offersOf(entry));
      for (const reply of answer.replies) entry.send(reply);
      if (answer.then === 'transmission') {
        const chosen = entry.exports.get(answer.exportName);
        assert(chosen !== undefined);
        return entry.entered(answer.exportName, chosen, answer.agreement);
      }
      return answer.then === 'options' ? expectOption(entry, answer.agreement, optionCount + 1) : entry.left();
    });
  });
}

function offersOf(entry: NbdEntry): ReadonlyMap<string, NbdOffer> {
  const sizes = { minimumBytes: sectorBytes, preferredBytes, payloadBytesMax: entry.requestBytesMax };
  return new Map([...entry.exports].map(([name, { sizeBytes, handler }]) => {
    const flags = nbdFlag.hasFlags | nbdFlag.flush | nbdFlag.fua
      // A read-only export looks the same through every connection.
      | (handler.write === undefined ? nbdFlag.readOnly | nbdFlag.multiConn : 0)
      | (handler.zero === undefined ? 0 : nbdFlag.writeZeroes | nbdFlag.fastZero | nbdFlag.trim)
      | (handler.read === undefined ? 0 : nbdFlag.df);
    return [name, { sizeBytes, flags, sizes, hasExtents: handler.extents !== undefined }];
  }));
}
