/** What a failover answers to whoever asked for it, and the point that it booted. */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import type { FailoverResult } from '../operations.ts';
import type { GroupStore, StoredPoint } from '../store/store.ts';
import type { FailoverNote } from './failover-note.ts';
import { startedGuests } from './group-guests.ts';
import { overlayPath } from './guest-launch.ts';

/** When it was asked for. */
export interface Asked { readonly monotonicMs: number; readonly atMs: number }

export async function bootedPoint(store: GroupStore, { point: id, facts }: FailoverNote): Promise<StoredPoint> {
  if (facts !== null) return { ...id, kind: facts.kind, cutAtMs: facts.cutAtMs, arrivedAtMs: facts.arrivedAtMs, changedBytes: facts.changedBytes, isApplied: true, ...(facts.label === undefined ? {} : { label: facts.label }) };
  const found = (await store.points()).find(({ term, point }) => term === id.term && point === id.point);
  if (found === undefined) throw new Fault('STORE_CORRUPT', `point ${formatPoint(id)} is to be booted and is not in the catalog`, { ...id });
  return found;
}

/** `booted`: as it was started. `after`: as it is now. */
export async function failoverResult(store: GroupStore, booted: FailoverNote, { handover, view }: FailoverNote, asked: Asked, accel: 'kvm' | 'tcg', clock: Clock): Promise<FailoverResult> {
  const point = await bootedPoint(store, booted);
  return {
    group: booted.group, term: booted.term, point, accel, ...startedGuests(booted.guests),
    lostMs: handover === null ? Math.max(0, asked.atMs - point.cutAtMs) : 0,
    rtoMs: clock.monotonicMs() - asked.monotonicMs,
    ...(handover === null ? {} : { downtimeMs: Math.max(0, clock.nowMs() - handover.stoppedAtMs) }),
    overlayPaths: store.report().disks.filter(({ isAtApplied }) => isAtApplied).map(({ disk }) => overlayPath(booted.folder, disk)),
    isComingHome: view !== null && !view.isHome,
  };
}
