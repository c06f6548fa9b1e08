/** Exit codes of the command, stable for scripts; the numbers are those of sysexits(3) where it has one. */
import { isFault } from '../journal/fault.ts';

export const exitCodes = {
  ok: 0,
  /** What was asked for was refused or failed; the message says why. */
  failed: 1,
  /** The command line is not understood. */
  usage: 64,
  /** No daemon answers. */
  unreachable: 69,
  /** A bug: a daemon that meets one ends with this. */
  bug: 70,
  /** The configuration is refused. */
  config: 78,
} as const;

/** A command line that is not understood, or not meant for the role that the config names. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What the operating system refused (a folder that may not be written to, a port that is taken): no bug, and no fault with a code of ours. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return exitCodes.usage;
  if (isSystemError(error)) return exitCodes.failed;
  if (!isFault(error)) return exitCodes.bug;
  switch (error.code) {
    case 'CONFIG_INVALID': return exitCodes.config;
    case 'DAEMON_UNREACHABLE': return exitCodes.unreachable;
    default: return exitCodes.failed;
  }
}
