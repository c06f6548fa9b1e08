/**
 * Follows the states of our jobs, the breaks of our quorum nodes and the guest's writes that failed, from the events of one QMP connection. It listens from
 * the connection's first moment, so that no event can fall between two waits; every wait has a limit and ends with the
 * connection. It starts and cancels nothing.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import { textOf } from '../../qemu/peer-text.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { RawJob } from './guest-objects.ts';
import { ownPrefix } from './object-names.ts';

/** For a job to end that was told to, and for QEMU to say so, ms. A job waits for its I/O under way, on a slow disk too. */
const endLimitMs = 60_000;

export interface QuorumBreak { readonly node: string; readonly type: string; readonly error: string }

export class JobWatch {
  readonly #qmp: QmpConnection;
  readonly #clock: Clock;
  readonly #states = new Map<string, string>();
  readonly #waiting = new Set<() => void>();
  readonly #breaks: QuorumBreak[] = [];
  #failedWrites = 0;
  #end: Fault | null = null;

  constructor(qmp: QmpConnection, clock: Clock) {
    this.#qmp = qmp;
    this.#clock = clock;
    qmp.onEvent(({ event, data }) => {
      if (event === 'JOB_STATUS_CHANGE') this.#state(textOf(data['id']), textOf(data['status']));
      if (event === 'QUORUM_REPORT_BAD' && textOf(data['node-name']).startsWith(ownPrefix)) {
        this.#breaks.push({ node: textOf(data['node-name']), type: textOf(data['type']), error: data['error'] === undefined ? '' : textOf(data['error']) });
      }
      if (event === 'BLOCK_IO_ERROR' && data['operation'] === 'write') this.#failedWrites += 1;
    });
    void qmp.closed.then((fault) => { this.#end = fault; this.#wake(); });
  }

  /** Writes of the guest that QEMU could not do so far, on any disk. */
  get failedWrites(): number { return this.#failedWrites; }

  /** Breaks of quorum children whose names begin so, as far as QEMU has reported them. */
  breaks(prefix: string): QuorumBreak[] {
    return this.#breaks.filter(({ node }) => node.startsWith(prefix));
  }

  /** Forgets breaks of nodes that are gone for good. */
  forgetBreaks(isGone: (node: string) => boolean): void {
    this.#breaks.splice(0, this.#breaks.length, ...this.#breaks.filter(({ node }) => !isGone(node)));
  }

  /** Takes note of a job that began before this connection. What an event has said meanwhile is newer. */
  see(job: RawJob): void {
    if (!this.#states.has(job.id)) this.#state(job.id, job.status);
  }

  /** As last heard; undefined before the job began. Throws once the connection is over. */
  state(id: string): string | undefined {
    if (this.#end !== null) throw new Fault('QMP_CLOSED', `the QMP connection ended while job ${id} ran: ${this.#end.message}`, { job: id }, this.#end);
    return this.#states.get(id);
  }

  /** Resolves with the state, once the job is in one of `states`, or concluded. */
  async until(id: string, states: readonly string[], limitMs: number = endLimitMs, signal?: AbortSignal): Promise<string> {
    const limit = new AbortController();
    const abort = (): void => { limit.abort(signal?.reason); this.#wake(); };
    signal?.addEventListener('abort', abort, { once: true });
    let isLate = false;
    this.#clock.delay(limitMs, limit.signal).then(() => { isLate = true; this.#wake(); }, () => undefined);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const state = this.#states.get(id);
        if (state !== undefined && (states.includes(state) || state === 'concluded' || state === 'null')) return state;
        this.state(id);
        if (isLate) throw new Fault('QMP_TIMEOUT', `job ${id} did not become ${states.join(' or ')} within ${limitMs} ms`, { job: id, limitMs, state });
        await new Promise<void>((resolve) => {
          const wake = (): void => { this.#waiting.delete(wake); resolve(); };
          this.#waiting.add(wake);
        });
      }
    } finally {
      signal?.removeEventListener('abort', abort);
      limit.abort(new Error('no longer waiting'));
    }
  }

  /** Of a concluded job: `error` is null when it did what it was to do; `copiedBytes` counts what it copied, twice what it copied twice. Forgets the job in QEMU. */
  async result(id: string): Promise<{ readonly error: string | null; readonly copiedBytes: number }> {
    const job = (await this.#qmp.execute<readonly RawJob[]>('query-jobs')).find((one) => one.id === id);
    if (job === undefined) throw new Fault('GUEST_CHANGED', `someone else dismissed job ${id}`, { job: id });
    await this.dismiss(id);
    return { error: job.error ?? null, copiedBytes: job['current-progress'] };
  }

  async dismiss(id: string): Promise<void> {
    await this.#qmp.execute('job-dismiss', { id });
    this.#states.delete(id);
  }

  #state(id: string, status: string): void {
    if (!id.startsWith(ownPrefix)) return;
    if (status === 'null') this.#states.delete(id);
    else this.#states.set(id, status);
    this.#wake();
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}
