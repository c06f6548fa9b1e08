/**
 * The two steps of a cycle: a point is cut, and sent until the target holds it. What a guest's supervisor decides between them is in
 * guest-supervisor.ts.
 */
import type { PointId } from '../../journal/point.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { CapturedDelta } from '../capture/capture.ts';
import { sendDelta, type DeltaSending } from '../stream/delta-sender.ts';
import type { TargetSession } from '../stream/session.ts';
import type { MarkOrder } from './marks.ts';
import type { SupervisorOptions } from './supervisor-options.ts';

/** What both sides agree on: what the target holds, the point that the next delta is against, and what of that is there already. */
export interface Agreed { readonly holding: GroupHolding; readonly base: PointId; readonly open: GroupHolding['open'] }

/** `about`: what the seal says of how the point came about. */
export interface CutPoint { readonly delta: CapturedDelta; readonly about: NonNullable<DeltaSending['about']> }

/** Cuts, and holds the guest still meanwhile where `order` asks for that. */
export async function cutPoint({ capture, app }: Pick<SupervisorOptions, 'capture' | 'app'>, base: PointId, next: PointId, order: MarkOrder | null): Promise<CutPoint> {
  if (order === null) return { delta: await capture.cut(base, next, 'crash'), about: {} };
  const { isApp, isFinal, label } = order.wish;
  const hold = order.isFrozenFor ? app?.hold() : undefined;
  let delta: CapturedDelta;
  try {
    delta = await capture.cut(base, next, isFinal === true ? 'final' : isApp ? 'crash' : 'mark', hold);
  } finally {
    if (hold?.isUsed === true) order.froze(hold.outcome.fault);
  }
  const { fault, ...freeze } = hold?.outcome ?? { fault: order.fault, ...(order.fault === null ? {} : { notApp: order.fault.code }) };
  const about = { ...freeze, ...(label === undefined ? {} : { label }) };
  if (!delta.isRound) {
    const reason = fault === null ? null : { code: fault.code, message: fault.message };
    order.cut({ ...next, kind: delta.kind, cutAtMs: delta.cutAtMs, isAppWanted: isApp, reason, ...about });
  }
  return { delta, about };
}

/** Sends a delta and ends it, one way or the other: after this the guest holds nothing for it. Resolves with what of an unsealed delta the target holds then. `onLeft`: as of `sendDelta`. */
export async function shipDelta(
  { facts, encoder, random }: Pick<SupervisorOptions, 'facts' | 'encoder' | 'random'>, session: TargetSession, { holding, base, open }: Agreed, { delta, about, next }: CutPoint & { readonly next: PointId },
  signal: AbortSignal, onLeft?: () => void,
): Promise<GroupHolding['open']> {
  const against = holding.newest === null && base.point === 0 ? null : base;
  let sent: { readonly open: GroupHolding['open'] };
  try {
    sent = await sendDelta(session, { groupId: facts.groupId, base: against, next, term: holding.term, open, about, random, encoder, signal, ...(onLeft === undefined ? {} : { onLeft }) }, delta);
  } catch (error) {
    await delta.end('unknown');
    throw error;
  }
  await delta.end('acknowledged');
  return sent.open;
}
