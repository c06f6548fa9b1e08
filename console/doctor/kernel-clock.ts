/** What the kernel says of its clock (adjtimex(2)): the one call of libc that only a check needs. Asks, sets nothing. */
import koffi from 'koffi';

/** What the kernel says of a clock that nobody keeps right. */
const TIME_ERROR = 5;
/** sizeof(struct timex) is 208 on 64-bit Linux; room to spare costs nothing. */
const timexBytes = 512;

/** Null when the kernel does not say. */
export function isClockSynchronised(): boolean | null {
  const adjtimex = koffi.load('libc.so.6').func('int adjtimex(_Inout_ uint8_t *timex)');
  // All zero: modes 0 reads and changes nothing.
  const state = adjtimex(Buffer.alloc(timexBytes)) as number;
  return state < 0 ? null : state !== TIME_ERROR;
}
