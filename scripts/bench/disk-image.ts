/**
 * The image that everything is measured on: half random bytes, a quarter text, a quarter holes, in turns of 4 MiB. The same
 * bytes in every run: the random half is a cipher's key stream, the text is words drawn by a seeded generator.
 */
import { createCipheriv } from 'node:crypto';
import { open } from 'node:fs/promises';

const mib = 1024 * 1024;
const pieceBytes = 4 * mib;
/** One turn; random twice, so that random and text do not lie in one half of the disk each. */
const turn = ['random', 'text', 'random', 'hole'] as const;
/** Text is cut from a pool of this size at varying places: no compressor that looks back 64 KiB finds it again. */
const textPoolBytes = 8 * mib;
const words = `the of and to a in is it that for was on are with they at be this from have or by one had not but what all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time could no make than first been its who now people my made over did down only way find use may water long little very after called just where most know`.split(/\s+/);

/** xorshift32 (Marsaglia 2003). */
export function seededDraw(seed: number): (limit: number) => number {
  let state = (seed | 0) || 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

/** Content by kind, without end. */
export class Content {
  readonly #cipher;
  readonly #zeroes = Buffer.alloc(pieceBytes);
  readonly #draw: (limit: number) => number;
  #pool: Buffer | null = null;

  constructor(seed: number) {
    const key = Buffer.alloc(16);
    key.writeUInt32LE(seed >>> 0);
    this.#cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
    this.#draw = seededDraw(seed);
  }

  random(bytes: number): Buffer {
    return this.#cipher.update(this.#zeroes.subarray(0, bytes));
  }

  text(bytes: number): Buffer {
    this.#pool ??= makeText(textPoolBytes, this.#draw);
    const at = this.#draw(textPoolBytes - bytes);
    return this.#pool.subarray(at, at + bytes);
  }
}

function makeText(bytes: number, draw: (limit: number) => number): Buffer {
  const parts: string[] = [];
  for (let length = 0; length < bytes;) {
    const part = `${words[draw(words.length)]!}${draw(12) === 0 ? '.\n' : ' '}`;
    parts.push(part);
    length += part.length;
  }
  return Buffer.from(parts.join('')).subarray(0, bytes);
}

/** `isFilled`: random where the holes would be, for loads that must not meet the file system's first allocation. */
export async function makeDiskImage(path: string, sizeBytes: number, isFilled = false): Promise<void> {
  const content = new Content(1);
  const file = await open(path, 'wx');
  try {
    await file.truncate(sizeBytes);
    for (let at = 0; at < sizeBytes; at += pieceBytes) {
      const kind = turn[(at / pieceBytes) % turn.length]!;
      if (kind === 'hole' && !isFilled) continue;
      await file.write(kind === 'text' ? content.text(pieceBytes) : content.random(pieceBytes), 0, pieceBytes, at);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Brings all of a file into the page cache, so that no run pays for the disk's reads and another does not. */
export async function readIntoCache(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(pieceBytes);
    while ((await file.read(buffer, 0, pieceBytes)).bytesRead > 0);
  } finally {
    await file.close();
  }
}
