/** Changes of bytes that know nothing of what they mean: bits, numbers in both orders, pieces left out, repeated, put elsewhere. */
import type { Dice } from '../sim/dice.ts';

const numbers: readonly bigint[] = [
  0n, 1n, 2n, 7n, 8n, 255n, 256n, 511n, 512n, 513n, 4095n, 4096n, 65_535n, 65_536n, 0x100000n, 0x100001n, 0x7fffffffn, 0x80000000n, 0xffffffffn, 0x100000000n,
  (1n << 53n) - 1n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n,
];

type Change = (input: Buffer, dice: Dice, other: Buffer) => Buffer;

const changes: readonly Change[] = [
  (input, dice) => edited(input, dice, 1, (copy, at) => { copy[at]! ^= 1 << dice.integer(8); }),
  (input, dice) => edited(input, dice, 1, (copy, at) => { copy[at] = dice.pick([0, 1, 2, 0x0a, 0x20, 0x7f, 0x80, 0xff, dice.integer(256)]); }),
  (input, dice) => number(input, dice, 2),
  (input, dice) => number(input, dice, 4),
  (input, dice) => number(input, dice, 8),
  (input, dice) => number(input, dice, 8),
  // Some more or less than what was there: a length that is nearly right.
  (input, dice) => edited(input, dice, 4, (copy, at) => { copy.writeUInt32LE((copy.readUInt32LE(at) + dice.integer(17) - 8) >>> 0, at); }),
  (input, dice) => edited(input, dice, 4, (copy, at) => { copy.writeUInt32BE((copy.readUInt32BE(at) + dice.integer(17) - 8) >>> 0, at); }),
  (input, dice) => input.subarray(0, dice.integer(input.length + 1)),
  (input, dice) => { const { from, to } = piece(input, dice); return Buffer.concat([input.subarray(0, from), input.subarray(to)]); },
  (input, dice) => { const { from, to } = piece(input, dice); return Buffer.concat([input.subarray(0, to), input.subarray(from)]); },
  (input, dice) => { const { from, to } = piece(input, dice); const times = 1 + dice.integer(64); return Buffer.concat([input.subarray(0, to), ...Array.from({ length: times }, () => input.subarray(from, to)), input.subarray(to)]); },
  (input, dice) => { const at = dice.integer(input.length + 1); return Buffer.concat([input.subarray(0, at), Buffer.alloc(1 + dice.integer(64), dice.pick([0, 0xff, 0x41, dice.integer(256)])), input.subarray(at)]); },
  (input, dice) => { const { from, to } = piece(input, dice); const copy = Buffer.from(input); copy.fill(dice.pick([0, 0xff]), from, to); return copy; },
  (input, dice, other) => { const cut = dice.integer(input.length + 1); return Buffer.concat([input.subarray(0, cut), other.subarray(dice.integer(other.length + 1))]); },
  (input, dice, other) => { const { from, to } = piece(other, dice); const at = dice.integer(input.length + 1); return Buffer.concat([input.subarray(0, at), other.subarray(from, to), input.subarray(at)]); },
];

/** One to some changes in a row. `other`: another input of the same decoder, `words`: of its format. */
export function mutate(input: Buffer, dice: Dice, other: Buffer, words: readonly (string | Buffer)[]): Buffer {
  let changed = input;
  const times = 1 + dice.integer(dice.chance(0.2) ? 12 : 3);
  for (let time = 0; time < times; time += 1) {
    changed = words.length > 0 && dice.chance(0.15) ? withWord(changed, dice, Buffer.from(dice.pick(words) as string)) : dice.pick(changes)(changed, dice, other);
  }
  return Buffer.from(changed);
}

function withWord(input: Buffer, dice: Dice, word: Buffer): Buffer {
  const at = dice.integer(input.length + 1);
  return Buffer.concat([input.subarray(0, at), word, input.subarray(dice.chance(0.5) ? at : Math.min(input.length, at + word.length))]);
}

function number(input: Buffer, dice: Dice, bytes: 2 | 4 | 8): Buffer {
  return edited(input, dice, bytes, (copy, at) => {
    const value = BigInt.asUintN(bytes * 8, dice.pick(numbers));
    const isLittle = dice.chance(0.5);
    for (let byte = 0; byte < bytes; byte += 1) copy[at + (isLittle ? byte : bytes - 1 - byte)] = Number((value >> BigInt(8 * byte)) & 0xffn);
  });
}

/** `bytes` of it at a place, half the time one where a field may begin. */
function edited(input: Buffer, dice: Dice, bytes: number, edit: (copy: Buffer, at: number) => void): Buffer {
  if (input.length < bytes) return input;
  const copy = Buffer.from(input);
  const at = dice.integer(input.length - bytes + 1);
  edit(copy, dice.chance(0.5) ? at - at % Math.max(2, bytes) : at);
  return copy;
}

function piece(input: Buffer, dice: Dice): { readonly from: number; readonly to: number } {
  const from = dice.integer(input.length + 1);
  const length = dice.chance(0.7) ? dice.integer(64) : dice.integer(input.length + 1);
  return { from, to: Math.min(input.length, from + length) };
}
