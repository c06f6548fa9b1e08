/** From the target's answer to a comparison to what has to travel. Pure. */

/** Blocks `first` to `end` (not included) that differ and touch each other. */
export interface Stretch { readonly first: number; readonly end: number }

/** `bits`: one character per block, '1' where the target's differs. In order; between two stretches there is at least one equal block. */
export function differingStretches(bits: string): Stretch[] {
  const stretches: Stretch[] = [];
  for (let first = bits.indexOf('1'); first >= 0;) {
    const behind = bits.indexOf('0', first);
    const end = behind < 0 ? bits.length : behind;
    stretches.push({ first, end });
    first = bits.indexOf('1', end);
  }
  return stretches;
}
