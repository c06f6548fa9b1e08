/**
 * Counts the bytes of the buffers that code asks for, and refuses what is beyond a limit before it is taken: a length that a
 * decoder believes shows at once, however much memory the machine has.
 */
type Allocate = (size: number, ...rest: unknown[]) => Buffer;
type Concat = typeof Buffer.concat;

let limitBytes = Infinity;
let askedBytes = 0;
let peakBytes = 0;

/** Thrown where a decoder asks for more than it may; it is none of its faults. */
export class TooManyBytes extends Error {
  override readonly name = 'TooManyBytes';
}

/** From now on. Once in a process. */
export function watchAllocations(): void {
  for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const) {
    const original = Buffer[name] as Allocate;
    (Buffer as unknown as Record<string, Allocate>)[name] = (size, ...rest) => {
      count(size);
      return original.call(Buffer, size, ...rest);
    };
  }
  const concat = Buffer.concat;
  (Buffer as { concat: Concat }).concat = (list, total) => {
    count(total ?? list.reduce((sum, { length }) => sum + length, 0));
    return concat.call(Buffer, list, total);
  };
}

export function beginCounting(bytesMax: number): void {
  limitBytes = bytesMax;
  askedBytes = 0;
  peakBytes = 0;
}

/** Bytes asked for since {@link beginCounting}, or in the largest stretch between two {@link forgetAsked}; nothing is refused after it. */
export function endCounting(): number {
  limitBytes = Infinity;
  return Math.max(peakBytes, askedBytes);
}

function count(size: number): void {
  if (!(size >= 0)) return;
  askedBytes += size;
  if (askedBytes > limitBytes) throw new TooManyBytes(`${askedBytes} bytes of buffers were asked for, the limit is ${limitBytes}`);
}

/** What was asked for so far is given back: what comes is counted by itself. */
export function forgetAsked(): void {
  peakBytes = Math.max(peakBytes, askedBytes);
  askedBytes = 0;
}
