/** What one look at whether a guest could start here found, and how it is said. */

export type StartVerdict = 'fine' | 'warning' | 'refused';

export interface StartFinding {
  readonly check: string;
  /** `warning`: it would start, differently or worse. `refused`: it would not start, or not work. */
  readonly verdict: StartVerdict;
  readonly found: string;
  /** What a person can do; empty when there is nothing to do. */
  readonly advice: string;
}

/** Could the group's guest start here? */
export interface StartReport {
  readonly group: string;
  readonly atMs: number;
  /** The worst of all. */
  readonly verdict: StartVerdict;
  /** What it was asked for: under this accelerator, with NICs that lead there. */
  readonly accel: 'kvm' | 'tcg';
  readonly network: string;
  readonly findings: readonly StartFinding[];
}

export const fine = (check: string, found: string): StartFinding => ({ check, verdict: 'fine', found, advice: '' });
export const warning = (check: string, found: string, advice: string): StartFinding => ({ check, verdict: 'warning', found, advice });
export const refused = (check: string, found: string, advice: string): StartFinding => ({ check, verdict: 'refused', found, advice });

/** For people, in the unit that fits: `512 MiB`, `1.5 GiB`. */
export function size(bytes: number): string {
  const gib = bytes / 1024 ** 3;
  return gib >= 1 ? `${gib >= 10 ? Math.round(gib) : gib.toFixed(1)} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}
