/**
 * Shuts a running guest down, and undoes that: what a planned failover asks of the guest's QEMU. The QEMU outlives the guest's power-off,
 * so that its disks can be read once more, and the guest can be started again where it was. It knows no disks and no deltas.
 */
import type { Clock } from '../host/clock.ts';
import { isFault } from '../journal/fault.ts';
import type { QmpConnection } from './qmp.ts';

export interface ShutDownOptions {
  /** How long the guest may take from the press of its power button, ms. */
  readonly limitMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Pace of looking, ms: the event is not enough, as it may have come before. */
const lookMs = 100;

/** A guest that was booting did not see the button; one that is on its way down takes no notice of it, ms. */
const pressAgainMs = 10_000;

export interface RunState { readonly status: string; readonly running: boolean }

/** QEMU's run state (qapi/run-state.json, `RunState`). */
export async function runState(qmp: QmpConnection): Promise<RunState> {
  return qmp.execute<RunState>('query-status');
}

/**
 * Presses the guest's power button and waits until it is off. Resolves with whether it is: at the limit it may run on, or be about to end.
 * Its QEMU stays, stopped, with what the guest wrote; until `startAgain` it would also stay after a power-off that the guest decides on.
 */
export async function shutDown(qmp: QmpConnection, { limitMs, clock, signal }: ShutDownOptions): Promise<boolean> {
  await qmp.execute('set-action', { shutdown: 'pause' });
  const endMs = clock.monotonicMs() + limitMs;
  let pressMs = 0;
  while ((await runState(qmp)).running) {
    const nowMs = clock.monotonicMs();
    if (nowMs >= endMs) return false;
    if (nowMs >= pressMs) {
      await qmp.execute('system_powerdown');
      pressMs = nowMs + pressAgainMs;
    }
    await clock.delay(lookMs, signal);
  }
  return true;
}

/** Stops the guest's processors where they are: for its disks as if the power had failed, for itself as if no time had passed. */
export async function standStill(qmp: QmpConnection): Promise<void> {
  await qmp.execute('stop');
}

/**
 * The guest runs: booted anew if it was shut down, else on from where it stood. One whose button was pressed may be about to end: for `waitMs` it is
 * waited for, because it would else be off a moment after it was taken for running.
 */
export async function startAgain(qmp: QmpConnection, { waitMs, clock }: { readonly waitMs: number; readonly clock: Clock }): Promise<void> {
  const endMs = clock.monotonicMs() + waitMs;
  let state = await runState(qmp);
  while (state.running && clock.monotonicMs() < endMs) {
    await clock.delay(lookMs);
    state = await runState(qmp);
  }
  if (state.status === 'shutdown') await qmp.execute('system_reset');
  if (!state.running) await qmp.execute('cont');
  await qmp.execute('set-action', { shutdown: 'poweroff' });
}

/** Ends the QEMU of a guest that stands still, and with it lets go of its disks. One that runs was started again by somebody, and is left alone. */
export async function endGuest(qmp: QmpConnection): Promise<void> {
  if ((await runState(qmp)).running) return;
  try {
    await qmp.execute('quit');
  } catch (error) {
    // It may be gone before its answer is out.
    if (!isFault(error, 'QMP_CLOSED')) throw error;
  }
  await qmp.closed;
}
