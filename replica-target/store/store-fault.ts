/** Turns what a disk throws into the store's faults. Anything without an error code is a bug and goes on as it is. */
import { Fault, type FaultCode } from '../../journal/fault.ts';

/** What the world calls its failure: ENOSPC, EIO and so on. Null for anything else, also for Node's own `ERR_…`: those say that it was called wrongly. */
export function errorCode(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && !error.code.startsWith('ERR_') ? error.code : null;
}

/** STORE_FULL for a full disk, STORE_SYNC for any other failure of one. A Fault stays what it is. */
export function storeFault(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  const code = errorCode(error);
  if (code === null) throw error;
  const fault: FaultCode = code === 'ENOSPC' || code === 'EDQUOT' ? 'STORE_FULL' : 'STORE_SYNC';
  return new Fault(fault, `${what}: ${(error as Error).message}`, { errno: code }, error);
}

export function corrupt(path: string, offset: number, detail: string, facts: Readonly<Record<string, unknown>> = {}): Fault {
  return new Fault('STORE_CORRUPT', `${path}, offset ${offset}: ${detail}`, { path, offset, ...facts });
}

export function newer(path: string, detail: string): Fault {
  return new Fault('STORE_NEWER', `${path} was written by a newer release: ${detail}`, { path });
}
