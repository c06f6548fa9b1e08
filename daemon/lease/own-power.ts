/** The power of a group's guests as a lease is about it: they run when any of them does. */
import { runState, standStill } from '../../qemu/guest-power.ts';
import { parsePlace } from '../../qemu/guest-place.ts';
import { lookUpDomain } from '../../qemu/libvirt/domain.ts';
import { connectMonitor } from '../../qemu/connect-guest.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { LeasedPower } from './lease-guard.ts';

/** For each answer, ms: a socket that serves another client says nothing at all. */
const answerMsMax = 1000;

export function anyPower(guests: readonly LeasedPower[]): LeasedPower {
  return {
    runState: async () => { const all = await Promise.all(guests.map((one) => one.runState())); return all.find(({ running }) => running) ?? all.find(({ status }) => status === 'paused') ?? all[0]!; },
    pause: async () => { await Promise.all(guests.map((one) => one.pause())); },
    goOn: async () => { await Promise.all(guests.map(async (one) => { if ((await one.runState()).status === 'paused') await one.goOn(); })); },
  };
}

/** Over connections that are made for it. Faults: QMP_*. */
export async function withOwnPower<T>(qmpPaths: readonly string[], act: (power: LeasedPower) => Promise<T>): Promise<T> {
  const connected: QmpConnection[] = [];
  try {
    for (const path of qmpPaths) connected.push(await connectMonitor(path, { connectTimeoutMs: answerMsMax, commandTimeoutMs: answerMsMax }));
    return await act(anyPower(connected.map((qmp) => ({ runState: () => runState(qmp), pause: () => standStill(qmp), goOn: async () => { await qmp.execute('cont'); } }))));
  } finally {
    for (const qmp of connected) qmp.close();
  }
}

/**
 * Why a guest might not be stopped in time when its lease ends; null: it can be. Commands through libvirt wait for its lock and for programs to start, longer than there is time, and
 * that is when all is going badly. Faults: LIBVIRT_*; QMP_UNREACHABLE, no such domain.
 */
export async function whyUnstoppable(places: readonly string[]): Promise<string | null> {
  for (const text of places) {
    const place = parsePlace(text);
    if (place?.kind !== 'libvirt' || (await lookUpDomain(place.uri, place.domain)).ownMonitor !== null) continue;
    return `${text} is reached through libvirt alone, too slowly to be stopped before its lease ends (onLeaseLost: pause). Give it a monitor of ours (afterimage add-monitor ${text}) and start it anew, or let it run on (onLeaseLost: ignore)`;
  }
  return null;
}
