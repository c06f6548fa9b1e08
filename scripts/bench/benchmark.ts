/** What every benchmark is given, and what it is: a function of the arguments that comes down to one result. */
import type { BenchArguments } from './arguments.ts';
import type { BenchResult } from './figures.ts';
import type { Site } from './site.ts';

export interface BenchContext {
  readonly site: Site;
  readonly arguments: BenchArguments;
  /** A line of progress, for people. */
  say(line: string): void;
}

export type Benchmark = (context: BenchContext) => Promise<BenchResult>;

const mib = 1024 * 1024;

export function mibOf(bytes: number): number {
  return bytes / mib;
}
