/**
 * Shuts a running guest down, and undoes that: what a planned failover asks of the guest's QEMU. The QEMU outlives the guest's power-off,
 * so that its disks can be read once more, and the guest can be started again where it was. It knows no disks and no deltas.
 */
import type { Clock } from '../host/clock.ts';
import { isFault } from '../journal/fault.ts';
import type { OffHold } from './off-hold.ts';
import type { QmpConnection } from './qmp.ts';

export interface ShutDownOptions {
  /** `restart`: its manager boots it anew as soon as it is off. */
  readonly offMeans?: OffHold['offMeans'];
  /** How long the guest may take from the press of its power button, ms. */
  readonly limitMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Pace of looking, ms: the event is not enough, as it may have come before. */
const lookMs = 100;

/** While the manager boots it anew, ms. */
const restartLookMs = 10;

/** A guest that was booting did not see the button; one that is on its way down takes no notice of it, ms. */
const pressAgainMs = 10_000;

export interface RunState { readonly status: string; readonly running: boolean }

/** Of QEMU by itself, until `startAgain`; of its manager with a hold. Resolves to null, or for people to why it would be ended. */
export async function keepThroughOff(qmp: QmpConnection, hold: OffHold | null): Promise<string | null> {
  if (hold === null) {
    await qmp.execute('set-action', { shutdown: 'pause' });
    return null;
  }
  try {
    // It has QEMU stay already (`-no-shutdown`), and ends it itself.
    await hold.take();
    return null;
  } catch (error) {
    if (!isFault(error)) throw error;
    return `its manager ends its QEMU as soon as it is off (${error.message})`;
  }
}

/** QEMU's run state (qapi/run-state.json, `RunState`). */
export async function runState(qmp: QmpConnection): Promise<RunState> {
  return qmp.execute<RunState>('query-status');
}

/**
 * Presses the guest's power button and waits until it is off. Resolves with whether it is: at the limit it may run on, or be about to end.
 * Its QEMU stays, stopped, with what the guest wrote ({@link keepThroughOff} comes first); until `startAgain` it would also stay after a power-off that the guest decides on.
 */
export async function shutDown(qmp: QmpConnection, { limitMs, clock, signal, offMeans = 'stop' }: ShutDownOptions): Promise<boolean> {
  const endMs = clock.monotonicMs() + limitMs;
  const restart = offMeans === 'restart' ? new RestartWatch(qmp) : null;
  try {
    let pressMs = 0;
    while (restart === null ? (await runState(qmp)).running : !(await restart.isOver())) {
      const nowMs = clock.monotonicMs();
      if (nowMs >= endMs) return false;
      if (nowMs >= pressMs && restart?.isOff !== true) {
        await qmp.execute('system_powerdown');
        pressMs = nowMs + pressAgainMs;
      }
      await clock.delay(restart?.isOff === true ? restartLookMs : lookMs, signal);
    }
    return true;
  } finally {
    restart?.close();
  }
}

/** Stops a guest that was off and that its manager has just begun to boot: its firmware takes longer to come to the disks than this takes. */
class RestartWatch {
  isOff = false;
  #isRunning = false;
  #stopping: Promise<unknown> | null = null;
  readonly #qmp: QmpConnection;
  readonly #close: () => void;

  constructor(qmp: QmpConnection) {
    this.#qmp = qmp;
    this.#close = qmp.onEvent(({ event, data }) => {
      if (event === 'SHUTDOWN' && data['guest'] === true) this.isOff = true;
      if (event !== 'RESUME' || !this.isOff || this.#isRunning) return;
      this.#isRunning = true;
      this.#stopping = qmp.execute('stop');
      this.#stopping.catch(() => undefined); // told by `isOver`
    });
  }

  /** It was off, and stands still before its boot. Faults: QMP_*. */
  async isOver(): Promise<boolean> {
    if (this.#stopping !== null) {
      await this.#stopping;
      return true;
    }
    // Somebody stopped it, or it was off before: its manager takes no notice of it then.
    return !this.isOff && !(await runState(this.#qmp)).running;
  }

  close(): void {
    this.#close();
  }
}

/** Stops the guest's processors where they are: for its disks as if the power had failed, for itself as if no time had passed. */
export async function standStill(qmp: QmpConnection): Promise<void> {
  await qmp.execute('stop');
}

/**
 * The guest runs: booted anew if it was shut down, else on from where it stood. One whose button was pressed may be about to end: for `waitMs` it is
 * waited for, because it would else be off a moment after it was taken for running.
 */
export async function startAgain(qmp: QmpConnection, { waitMs, clock, hold = null }: { readonly waitMs: number; readonly clock: Clock; readonly hold?: OffHold | null }): Promise<void> {
  const endMs = clock.monotonicMs() + waitMs;
  let state = await runState(qmp);
  while (state.running && clock.monotonicMs() < endMs) {
    await clock.delay(lookMs);
    state = await runState(qmp);
  }
  if (state.status === 'shutdown') await qmp.execute('system_reset');
  if (!state.running) await qmp.execute('cont');
  if (hold === null) await qmp.execute('set-action', { shutdown: 'poweroff' });
  else await hold.release();
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
