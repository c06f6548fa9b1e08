/**
 * Which error a request gets without anybody being asked, and which error a failure becomes ("Error values" and "Request types" of
 * the NBD protocol). Pure. Invariant: what passes lies within the export, on its smallest blocks, and has a handler that can do it.
 */
import { isFault } from '../journal/fault.ts';
import { sectorBytes } from '../journal/limits.ts';
import type { NbdExport } from './nbd-handler.ts';
import { nbdCommand, nbdCommandFlag, nbdError, type NbdRequest } from './nbd-protocol.ts';

export interface NbdRefusalContext {
  readonly export: NbdExport;
  readonly requestBytesMax: number;
  /** `base:allocation` was selected for this export. */
  readonly hasAllocation: boolean;
}

/** 0: not refused. */
export function refuseRequest({ type, flags, offset, length }: NbdRequest, context: NbdRefusalContext): number {
  const { handler, sizeBytes, isZeroFast, minimumBytes = sectorBytes } = context.export;
  const isWithin = offset + length <= sizeBytes;
  const isOnBlocks = offset % minimumBytes === 0 && length % minimumBytes === 0;
  if ((flags & ~allowedFlags(type)) !== 0) return nbdError.inval;
  switch (type) {
    case nbdCommand.write:
      if (handler.write === undefined) return nbdError.perm;
      if (!isWithin) return nbdError.nospc;
      return isOnBlocks && length <= context.requestBytesMax ? 0 : nbdError.inval;
    case nbdCommand.writeZeroes:
      if (handler.write === undefined) return nbdError.perm;
      if (handler.zero === undefined) return nbdError.inval;
      if (!isWithin) return nbdError.nospc;
      if ((flags & nbdCommandFlag.fastZero) !== 0 && isZeroFast === false) return nbdError.notsup;
      return isOnBlocks ? 0 : nbdError.inval;
    case nbdCommand.trim:
      if (handler.write === undefined) return nbdError.perm;
      return handler.zero !== undefined && isWithin && isOnBlocks ? 0 : nbdError.inval;
    case nbdCommand.flush:
      return offset === 0 && length === 0 ? 0 : nbdError.inval;
    case nbdCommand.read:
      return handler.read !== undefined && isWithin && isOnBlocks && length > 0 && length <= context.requestBytesMax ? 0 : nbdError.inval;
    case nbdCommand.blockStatus:
      return handler.extents !== undefined && context.hasAllocation && isWithin && isOnBlocks && length > 0 ? 0 : nbdError.inval;
    default: return nbdError.inval;
  }
}

/** "Existing clients are known to set FUA on other commands": it is allowed on all. */
function allowedFlags(type: number): number {
  switch (type) {
    case nbdCommand.writeZeroes: return nbdCommandFlag.fua | nbdCommandFlag.noHole | nbdCommandFlag.fastZero;
    case nbdCommand.read: return nbdCommandFlag.fua | nbdCommandFlag.df;
    case nbdCommand.blockStatus: return nbdCommandFlag.fua | nbdCommandFlag.reqOne;
    default: return nbdCommandFlag.fua;
  }
}

/** "SHOULD map the EDQUOT and EFBIG errors to NBD_ENOSPC". */
export function errorOf(failure: unknown): number {
  if (isFault(failure, 'STORE_FULL') || isFault(failure, 'SPOOL_FULL')) return nbdError.nospc;
  switch ((failure as NodeJS.ErrnoException | null | undefined)?.code) {
    case 'ENOSPC': case 'EDQUOT': case 'EFBIG': return nbdError.nospc;
    case 'EPERM': case 'EACCES': case 'EROFS': return nbdError.perm;
    default: return nbdError.io;
  }
}
