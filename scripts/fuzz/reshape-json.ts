/** Changes JSON member by member: what comes out is JSON still, of another shape than any encoder gives it. */
import type { Dice } from '../sim/dice.ts';

/** Stands for text that `JSON.stringify` cannot make: it descends, and would be at the end of its stack. */
const deepWord = '\u{1f573}';

const values: readonly ((dice: Dice) => unknown)[] = [
  () => null, () => true, () => [], () => ({}), () => '', () => -1, () => 0, () => 1, () => 1.5, () => -0.5, () => 1e308, () => 1e20,
  () => 2 ** 31, () => 2 ** 32 - 1, () => 2 ** 32, () => Number.MAX_SAFE_INTEGER, () => 2 ** 53, () => 2 ** 64, () => 9e15,
  () => '../../etc/passwd', () => 'a\0b', () => '\u202e', () => '\ud800', () => '__proto__', () => 'x'.repeat(5000), () => '9'.repeat(400),
  // No text can be made of it: its own members stand where the built-in ones were.
  () => ({ toString: 0, valueOf: 0 }), () => ({ length: -1 }), () => ({ toJSON: 1, then: 2 }), () => [null], () => [[]], () => [{}], () => deepWord,
  (dice) => Array.from({ length: dice.integer(300) }, () => 1e20), (dice) => dice.integer(1000), (dice) => 'z'.repeat(dice.integer(300)),
];

/** Null when the text is no JSON. */
export function reshapeJson(text: string, dice: Dice): string | null {
  let root: { value: unknown };
  try {
    root = { value: JSON.parse(text) };
    const changes = 1 + dice.integer(3);
    for (let change = 0; change < changes; change += 1) changeOne(root, dice);
    return JSON.stringify(root.value)?.replaceAll(`"${deepWord}"`, () => deep(dice)) ?? null;
  } catch (error) {
    // What an earlier change made deep cannot be changed once more.
    if (error instanceof SyntaxError || error instanceof RangeError) return null;
    throw error;
  }
}

function deep(dice: Dice): string {
  const depth = dice.pick([100, 5000, 20_000]);
  return dice.chance(0.5) ? '['.repeat(depth) + ']'.repeat(depth) : '{"a":'.repeat(depth) + '0' + '}'.repeat(depth);
}

/** A place is drawn by going down from the top, so that what lies near it is drawn more often. */
function changeOne(root: { value: unknown }, dice: Dice): void {
  let holder: object = root;
  let key = 'value';
  for (;;) {
    const inner = (holder as Record<string, unknown>)[key];
    if (typeof inner !== 'object' || inner === null || dice.chance(0.15)) break;
    const keys = Object.keys(inner);
    if (keys.length === 0) break;
    holder = inner;
    key = dice.pick(keys);
  }
  const members = holder as Record<string, unknown>;
  const act = dice.integer(10);
  if (act < 6) members[key] = dice.pick(values)(dice);
  else if (act < 7) delete members[key];
  // A list has no named members in JSON, and its length takes no such values.
  else if (act < 8 && !Array.isArray(holder)) members[dice.pick(['x', '__proto__', 'constructor', 'toString', 'then', 'length'])] = dice.pick(values)(dice);
  else if (act < 9 && Array.isArray(holder)) holder.push(...Array.from({ length: 1 + dice.integer(40) }, () => structuredClone(members[key])));
  else members[key] = [members[key], structuredClone(members[key])];
}
