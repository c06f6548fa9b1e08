/**
 * Tickets for streams: browsers cannot give a WebSocket or an EventSource an Authorization header, and a token does not belong
 * into an address, which ends up in logs and histories. A ticket may: it is good once, for half a minute, for what its owner may.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { Actor } from './route.ts';

const ticketMs = 30_000;
/** A browser asks for one per stream. */
const ticketsMax = 1000;

export interface Ticket { readonly ticket: string; readonly expiresAtMs: number }

export class Tickets {
  readonly #clock: Clock;
  readonly #open = new Map<string, { readonly actor: Actor; readonly expiresAtMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Fault REQUEST_FLOOD. */
  issue(actor: Actor): Ticket {
    const nowMs = this.#clock.nowMs();
    for (const [ticket, { expiresAtMs }] of this.#open) if (expiresAtMs <= nowMs) this.#open.delete(ticket);
    if (this.#open.size >= ticketsMax) throw new Fault('REQUEST_FLOOD', `${ticketsMax} tickets wait to be used`, { retryAfterS: ticketMs / 1000 });
    // Found by the map's hash of 256 random bits: nothing can be learnt from how long that takes.
    const ticket = randomBytes(32).toString('base64url');
    this.#open.set(ticket, { actor, expiresAtMs: nowMs + ticketMs });
    return { ticket, expiresAtMs: nowMs + ticketMs };
  }

  /** Whose it is; null when there is no such ticket, or not any more. It is used up. */
  use(ticket: string): Actor | null {
    const found = this.#open.get(ticket);
    this.#open.delete(ticket);
    return found === undefined || found.expiresAtMs <= this.#clock.nowMs() ? null : found.actor;
  }
}
