/** The three calls of libc that checks need and Node lacks. Synchronous and short. */
import koffi from 'koffi';

const libc = koffi.load(null);
const fallocateCall = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const adjtimexCall = libc.func('int adjtimex(_Inout_ uint8_t *timex)');

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;

/** Null when it worked, else the error's number. */
export function fallocate(fd: number, mode: number, offset: number, length: number): number | null {
  return fallocateCall(fd, mode, offset, length) === 0 ? null : koffi.errno();
}

/** adjtimex(2): TIME_ERROR, what the kernel says of a clock that nobody keeps right. */
const TIME_ERROR = 5;
/** sizeof(struct timex) is 208 on 64-bit Linux; room to spare costs nothing. */
const timexBytes = 512;

/** Null when the kernel does not say (adjtimex refused). */
export function isClockSynchronised(): boolean | null {
  // All zero: modes 0 reads and changes nothing.
  const state = adjtimexCall(Buffer.alloc(timexBytes)) as number;
  return state < 0 ? null : state !== TIME_ERROR;
}
