/** The person's end: what is printed where, whether there is a terminal, and the one question that is ever asked. */
import { createInterface } from 'node:readline/promises';
import { UsageError } from './exit-code.ts';
import { plainLook, type Look } from './render/look.ts';

/** Columns below which tables make no sense; `COLUMNS` of odd terminals is 0 or 1. */
const widthMin = 40;

export function lookOf(stream: NodeJS.WriteStream): Look {
  if (!stream.isTTY) return plainLook;
  const { NO_COLOR, TERM } = process.env;
  return { isColour: (NO_COLOR ?? '') === '' && TERM !== 'dumb', width: Math.max(widthMin, stream.columns ?? 80) };
}

export function print(text: string): void {
  process.stdout.write(text);
}

/** For people beside output that scripts read. */
export function printAside(text: string): void {
  process.stderr.write(text);
}

export function printJson(value: unknown, isPretty = process.stdout.isTTY): void {
  process.stdout.write(`${JSON.stringify(value, undefined, isPretty ? 2 : undefined)}\n`);
}

/** All of standard input, as text. UsageError: it is longer than `bytesMax`. */
export async function readInput(bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new UsageError(`standard input is longer than the ${bytesMax} bytes that are expected there`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

export function isInteractive(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/** True when the answer is the word `yes`, nothing else. */
export async function confirm(question: string): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  // Ctrl-C and Ctrl-D are a no.
  const ended = new Promise<string>((resolve) => { lines.once('close', () => resolve('')); });
  try {
    return (await Promise.race([lines.question(question), ended])).trim().toLowerCase() === 'yes';
  } finally {
    lines.close();
  }
}

/** `afterimage status | head` ends the pipe early: that is no failure. */
export function endQuietlyOnBrokenPipe(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}
