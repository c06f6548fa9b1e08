/**
 * What a check of `doctor` is: a name and a function that looks at one thing and says what it found and what to do. Checks
 * change nothing that lasts, need no daemon, and never hold each other up.
 */

export type Verdict = 'ok' | 'warn' | 'fail';

export interface Finding {
  readonly verdict: Verdict;
  /** What is there, in a phrase. */
  readonly found: string;
  /** What to do about it; empty when there is nothing to do. */
  readonly advice: string;
  /** Debian packages that are missing. */
  readonly packages?: readonly string[];
}

export interface Check {
  readonly name: string;
  run(): Promise<Finding>;
}

export interface CheckResult extends Finding { readonly name: string }

export interface DoctorReport {
  /** The worst of all. */
  readonly verdict: Verdict;
  readonly checks: readonly CheckResult[];
  /** Debian packages to install, all checks together. */
  readonly install: readonly string[];
}

/** A check that has not ended by then hangs on what it looks at (a dead network file system, a QEMU that does not answer), ms. */
const checkMsMax = 30_000;

export const ok = (found: string): Finding => ({ verdict: 'ok', found, advice: '' });
export const warn = (found: string, advice: string): Finding => ({ verdict: 'warn', found, advice });
export const fail = (found: string, advice: string): Finding => ({ verdict: 'fail', found, advice });

export async function runChecks(checks: readonly Check[]): Promise<DoctorReport> {
  const results = await Promise.all(checks.map(runCheck));
  const verdict = (['fail', 'warn'] as const).find((worst) => results.some((result) => result.verdict === worst)) ?? 'ok';
  return { verdict, checks: results, install: [...new Set(results.flatMap(({ packages }) => packages ?? []))] };
}

async function runCheck(check: Check): Promise<CheckResult> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<Finding>((resolve) => {
    timer = setTimeout(() => resolve(fail(`did not end within ${checkMsMax / 1000} s`, 'What it looks at hangs: look there first.')), checkMsMax);
  });
  try {
    return { name: check.name, ...await Promise.race([check.run(), limit]) };
  } catch (error) {
    // Not understood, and said so: a doctor that dies on one patient helps nobody.
    return { name: check.name, ...fail(`could not be checked: ${error instanceof Error ? error.message : String(error)}`, 'Report this with the message.') };
  } finally {
    clearTimeout(timer);
  }
}
