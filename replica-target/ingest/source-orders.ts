/**
 * The other direction of the wire: what this target asks of the source of a group (planned failover, PROTOCOL.md "Handover"), whichever connection
 * that source has just now. It keeps who can be asked and who waits for an answer, and decides nothing.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { HandoverAnswer, HandoverOrder, TargetMessage } from '../../journal/wire.ts';

export type YieldAnswer = Extract<HandoverAnswer, { readonly t: 'yielded' | 'kept' }>;

/** Who is told what a source says by itself. */
export interface SourceListener {
  /** The source has let go of its guest, in this term, durably. May come more than once. */
  onRelinquished(groupId: string, term: number): void;
  /** The source wants to go on protecting its guest, so it has not let go of it. */
  onAnnounced(groupId: string): void;
  /** The guest that ran here is live elsewhere, and the group is another source's, durably. May come more than once. */
  onHandedOver(groupId: string): void;
}

interface Peer { readonly send: (message: TargetMessage) => void }
interface Waiting { readonly id: string; readonly peer: Peer; settle(answer: YieldAnswer | Fault): void }

export class SourceOrders {
  readonly #clock: Clock;
  readonly #peers = new Map<string, Peer>();
  readonly #waiting = new Map<string, Waiting>();
  listener: SourceListener | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The source of a group was taken on a connection. Returns the way to say that it is gone from there. */
  attach(groupId: string, send: Peer['send']): () => void {
    const peer = { send };
    this.#peers.set(groupId, peer);
    return () => {
      if (this.#peers.get(groupId) === peer) this.#peers.delete(groupId);
      const waiting = this.#waiting.get(groupId);
      if (waiting?.peer === peer) waiting.settle(absent('was lost in the middle of it'));
    };
  }

  announced(groupId: string): void {
    this.listener?.onAnnounced(groupId);
  }

  handedOver(groupId: string): void {
    this.listener?.onHandedOver(groupId);
  }

  answered(answer: HandoverAnswer): void {
    if (answer.t === 'relinquished') return this.listener?.onRelinquished(answer.group, answer.term);
    const waiting = this.#waiting.get(answer.group);
    if (waiting?.id === answer.id) waiting.settle(answer);
    // Whoever asked waits no more: its guest is not to stand still for that.
    else if (answer.t === 'yielded') this.tell({ t: 'recall', group: answer.group, id: answer.id });
  }

  isPresent(groupId: string): boolean {
    return this.#peers.has(groupId);
  }

  /** Says it to the source, if it is there. Whether it was heard shows in what it does. */
  tell(order: HandoverOrder): void {
    this.#peers.get(order.group)?.send(order);
  }

  /** Fault SOURCE_ABSENT: it is not there, was lost, or did not answer within `limitMs`. */
  async askToYield(order: Extract<HandoverOrder, { readonly t: 'yield' }>, limitMs: number): Promise<YieldAnswer> {
    const peer = this.#peers.get(order.group);
    if (peer === undefined) throw absent('is not connected');
    const over = new AbortController();
    const answer = new Promise<YieldAnswer | Fault>((resolve) => { this.#waiting.set(order.group, { id: order.id, peer, settle: resolve }); });
    const late = this.#clock.delay(limitMs, over.signal).then(() => absent(`did not answer within ${limitMs} ms`), () => absent('was not waited for'));
    peer.send(order);
    const settled = await Promise.race([answer, late]);
    over.abort(new Error('answered'));
    this.#waiting.delete(order.group);
    if (settled instanceof Fault) throw settled;
    return settled;
  }
}

function absent(how: string): Fault {
  return new Fault('SOURCE_ABSENT', `the guest’s source ${how}`);
}
