/** Whether a guest that runs elsewhere may be shut down there to be started here. Pure. An emergency is not asked this: it goes on in spite of all. */
import { Fault } from '../../journal/fault.ts';
import type { StartReport } from './start-finding.ts';

/** UUID and MACs: where both hosts are one it is the guest itself that has them, and it will be down. */
const ownBeforehand: ReadonlySet<string> = new Set(['identity']);

/** Fault FAILOVER_BOOT. */
export function refuseToMove({ group, findings }: StartReport): void {
  const refused = findings.filter(({ check, verdict }) => verdict === 'refused' && !ownBeforehand.has(check));
  if (refused.length === 0) return;
  const said = refused.map(({ check, found, advice }) => `${check}: ${found} (${advice})`).join('; ');
  throw new Fault('FAILOVER_BOOT', `${group} could not start here, so it is not shut down where it runs: ${said}`, { group, refused });
}
