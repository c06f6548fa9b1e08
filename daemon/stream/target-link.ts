/**
 * Keeps one connection to one target alive: connects, hands the session to whoever waits, and when it is over connects
 * again, with pauses that grow and vary. It never gives up and never decides what to send.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { noFailures, planBackoff, type Backoff } from './backoff-plan.ts';
import { connectTarget, type TargetAddress } from './connect-target.ts';
import type { LinkReport, TargetLink, TargetSession } from './session.ts';
import type { OutboxGate } from './throttle.ts';
import { sessionLimits, type SessionLimits, type WireSession } from './wire-session.ts';

export interface TargetLinkOptions extends TargetAddress {
  /** The target's name, for people. */
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly limits?: Partial<SessionLimits>;
  /** The source's rate limits; absent: none. */
  readonly gate?: OutboxGate | null;
  /** In place of {@link connectTarget}: over another kind of network. */
  readonly connect?: typeof connectTarget;
}

/** Connects at once, in the background. */
export function openTargetLink(options: TargetLinkOptions): TargetLink {
  return new Link(options);
}

interface Waiting { readonly resolve: (session: TargetSession) => void; readonly reject: (reason: Error) => void }

class Link implements TargetLink {
  readonly #o: TargetLinkOptions;
  readonly #stop = new AbortController();
  readonly #waiting = new Set<Waiting>();
  readonly #running: Promise<void>;
  #session: WireSession | null = null;
  #state: LinkReport['state'] = 'connecting';
  #sinceMs: number;
  #lastFault: LinkReport['lastFault'] = null;
  #sentBytesBefore = 0;
  #sessions = 0;
  #loggedCode = '';

  constructor(options: TargetLinkOptions) {
    this.#o = options;
    this.#sinceMs = options.clock.nowMs();
    this.#running = this.#run();
  }

  session(signal: AbortSignal): Promise<TargetSession> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (this.#session?.isOver === false) return Promise.resolve(this.#session);
    if (this.#stop.signal.aborted) return Promise.reject(this.#stop.signal.reason as Error);
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(waiting);
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = (): void => { leave(); reject(signal.reason as Error); };
      const waiting: Waiting = {
        resolve: (session) => { leave(); resolve(session); },
        reject: (reason) => { leave(); reject(reason); },
      };
      this.#waiting.add(waiting);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  report(): LinkReport {
    return {
      state: this.#state,
      sinceMs: this.#sinceMs,
      lastFault: this.#lastFault,
      sentBytes: this.#sentBytesBefore + (this.#session?.sentBytes ?? 0),
      reconnects: Math.max(0, this.#sessions - 1),
      ...(this.#session?.isOver === false ? { queue: this.#session.queue } : {}),
    };
  }

  async close(): Promise<void> {
    const reason = new Fault('TARGET_UNREACHABLE', `the link to ${this.#o.name} was closed`);
    this.#stop.abort(reason);
    this.#session?.close();
    for (const { reject } of [...this.#waiting]) reject(reason);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, random, limits } = this.#o;
    const { signal } = this.#stop;
    let backoff: Backoff = noFailures;
    while (!signal.aborted) {
      let standsMs = 0;
      try {
        const session = await (this.#o.connect ?? connectTarget)(this.#o, { clock, random, limits: { ...sessionLimits, ...limits }, gate: this.#o.gate }, signal);
        const fromMs = clock.monotonicMs();
        const fault = await this.#serve(session);
        standsMs = clock.monotonicMs() - fromMs;
        this.#note(fault);
      } catch (error) {
        if (signal.aborted) break;
        if (!isFault(error)) throw error;
        this.#note(error);
      }
      if (signal.aborted) break;
      const plan = planBackoff(backoff, standsMs, random.fraction());
      backoff = plan.next;
      try {
        await clock.delay(plan.delayMs, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
    this.#enter('down');
  }

  async #serve(session: WireSession): Promise<Fault> {
    if (this.#stop.signal.aborted) session.close();
    this.#session = session;
    this.#sessions += 1;
    this.#loggedCode = '';
    this.#enter('up');
    this.#o.log.info({ target: this.#o.name, host: this.#o.host, port: this.#o.port }, 'connected to the target');
    for (const { resolve } of [...this.#waiting]) resolve(session);
    const fault = await session.closed;
    this.#sentBytesBefore += session.sentBytes;
    this.#session = null;
    return fault;
  }

  #note(fault: Fault): void {
    if (this.#stop.signal.aborted) return;
    this.#lastFault = { code: fault.code, message: fault.message, atMs: this.#o.clock.nowMs() };
    this.#enter('down');
    // Said once, not at every attempt: an absent target is a state, not an event.
    if (this.#loggedCode !== fault.code) this.#o.log.warn({ target: this.#o.name, code: fault.code, facts: fault.facts }, fault.message);
    this.#loggedCode = fault.code;
  }

  /** `down` covers the attempts in between too: its time is since when the target is away. */
  #enter(state: LinkReport['state']): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#sinceMs = this.#o.clock.nowMs();
  }
}
