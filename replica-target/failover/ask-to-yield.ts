/**
 * The first step of a planned failover: the source shuts its guest down and sends what is left. Nothing was changed here when it resolves; the guest
 * then stands still at the source until it is told to go on, or to let go.
 */
import { randomBytes } from 'node:crypto';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import type { SourceOrders } from '../ingest/source-orders.ts';
import type { PlannedOptions } from '../operations.ts';
import type { GroupStore } from '../store/store.ts';
import type { FailoverNote } from './failover-note.ts';

/** Beyond the shutdown: a cycle under way, and the last delta, ms. */
const finalMsMax = 600_000;

/** Faults: SOURCE_ABSENT, HANDOVER_ENDED, GUEST_KEEPS_RUNNING. The guest runs on, or is started again by its source. */
export async function askToYield(orders: SourceOrders, store: GroupStore, { shutdownMs, onLimit }: PlannedOptions): Promise<NonNullable<FailoverNote['handover']>> {
  const { groupId } = store;
  const { name } = store.report();
  const id = randomBytes(8).toString('hex');
  try {
    const answer = await orders.askToYield({ t: 'yield', group: groupId, id, shutdownMs, onLimit }, shutdownMs + finalMsMax);
    if (answer.t === 'kept') {
      if (answer.code === 'GUEST_KEEPS_RUNNING') throw new Fault('GUEST_KEEPS_RUNNING', answer.message, { group: name });
      throw new Fault('HANDOVER_ENDED', `the source of ${name} kept its guest: ${answer.code}: ${answer.message}`, { group: name, code: answer.code });
    }
    const { newest } = store.report();
    if (newest?.term !== answer.point.term || newest.point !== answer.point.point || newest.kind !== 'final') {
      throw new Fault('HANDOVER_ENDED', `the source of ${name} named ${formatPoint(answer.point)} as its final point, and the newest here is another`, { group: name });
    }
    return { id, state: 'asked', stoppedAtMs: answer.stoppedAtMs };
  } catch (error) {
    if (isFault(error)) orders.tell({ t: 'recall', group: groupId, id });
    throw error;
  }
}
