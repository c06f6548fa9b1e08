/** Puts beside a failover or a test what was found of whether it could start, without ever making it wait. */
import { Fault, isFault } from '../../journal/fault.ts';
import type { CheckBeside } from './start-check-watch.ts';
import type { StartReport } from './start-finding.ts';

/** As `act`, with what was found by then. A boot that failed has time: its fault names what was refused. */
export async function explained<T extends object>(beside: CheckBeside, act: () => Promise<T>): Promise<T & { readonly startCheck: StartReport | null }> {
  try {
    return { ...await act().finally(beside.release), startCheck: beside.found() };
  } catch (error) {
    if (!isFault(error, 'FAILOVER_BOOT')) throw error;
    const refusals = (await beside.ended)?.findings.filter(({ verdict }) => verdict === 'refused') ?? [];
    if (refusals.length === 0) throw error;
    const said = refusals.map(({ check, found, advice }) => `${check}: ${found} (${advice})`).join('; ');
    throw new Fault('FAILOVER_BOOT', `${error.message}\nWhat stands in its way here: ${said}`, { ...error.facts, refused: refusals }, error);
  }
}
