/**
 * How many failures to prove oneself an address may cause: it bounds what a flood of wrong tokens costs and writes into the log.
 * It does not keep a right token out, which 256 random bits make safe and which else whoever shares an operator's address could do.
 */
import { isIPv6 } from 'node:net';
import type { Clock } from '../../host/clock.ts';

const failuresMax = 20;
const windowMs = 60_000;
/** Beyond so many addresses the one that failed longest ago is forgotten. */
const addressesMax = 4096;

export class FailureLimit {
  readonly #clock: Clock;
  readonly #counts = new Map<string, { count: number; readonly sinceMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts one. How long the address should wait, s; null while it is within the limit. */
  fail(address: string): number | null {
    const key = networkOf(address);
    const nowMs = this.#clock.monotonicMs();
    const known = this.#counts.get(key);
    const current = known === undefined || nowMs - known.sinceMs >= windowMs ? { count: 0, sinceMs: nowMs } : known;
    this.#counts.delete(key);
    this.#counts.set(key, current);
    if (this.#counts.size > addressesMax) this.#counts.delete(this.#counts.keys().next().value!);
    current.count = Math.min(current.count + 1, failuresMax + 1);
    return current.count > failuresMax ? Math.max(1, Math.ceil((current.sinceMs + windowMs - nowMs) / 1000)) : null;
  }
}

/** One customer's IPv6 network is a /64 at least. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  return [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right].slice(0, 4).join(':');
}
