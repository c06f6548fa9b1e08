/**
 * What is fuzzed: a decoder of bytes that somebody else wrote, with valid encodings to start from. Whatever bytes it is given, it ends
 * with a result or with one of its named faults, within its stated memory and time; everything else is a crash.
 */
import type { FaultCode } from '../../journal/fault.ts';
import type { Dice } from '../sim/dice.ts';

export interface Decoder {
  readonly name: string;
  /** What it may refuse its input with. Without any it says so by its result, and throws nothing. */
  readonly faults: readonly FaultCode[];
  /** Longest input that it is given. */
  readonly inputBytesMax: number;
  /** Bytes of buffers that it may ask for in all while it decodes one input; `inputBytes`: that input's length. */
  bufferBytesMax(inputBytes: number): number;
  /** Words of the format, to be put anywhere. */
  readonly words?: readonly (string | Buffer)[];
  /** Inputs of JSON or YAML: they are changed as text and, where they are JSON, member by member. */
  readonly isText?: boolean;
  /** Valid encodings, made by the real encoders. */
  seeds(): readonly Buffer[] | Promise<readonly Buffer[]>;
  /** A change that knows the format; null where it has none for this input. */
  reshape?(input: Buffer, dice: Dice): Buffer | null;
  /** Puts lengths and checksums right in place, so that what lies behind their checks is reached. */
  mend?(input: Buffer): void;
  decode(input: Buffer): unknown;
  /** Ends what was opened for it (a server, a folder). */
  close?(): Promise<void>;
}
