/** `./scripts/test --long`: also what would make the ordinary run too long, and of some tests many more turns. */
export const isLong = process.env['AFTERIMAGE_LONG'] === '1';

/** How often a test goes round: as its own variable says, else by the extent of the run. */
export function turns(variable: string, usual: number, long: number): number {
  return Number(process.env[variable] ?? (isLong ? long : usual));
}

/** A limit of the ordinary run, ms, for either. */
export function limitMs(usualMs: number): number {
  return usualMs * (isLong ? 6 : 1);
}
