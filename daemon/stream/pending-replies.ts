/**
 * Requests of one session that wait for their reply, each with a time limit. The target answers a group's requests in the
 * order in which they came, so the oldest of a kind is the one that is answered; compares carry an id. It knows no socket.
 */
import type { Fault } from '../../journal/fault.ts';
import type { TargetMessage } from '../../journal/wire.ts';

export type ReplyKind = 'group' | 'seeded' | 'forgotten' | 'differs';
export type Reply<K extends ReplyKind> = Extract<TargetMessage, { readonly t: K }>;

interface Waiting {
  readonly kind: ReplyKind;
  readonly id: number | null;
  readonly untilMs: number;
  readonly resolve: (reply: TargetMessage) => void;
  readonly reject: (fault: Fault) => void;
}

export class PendingReplies {
  readonly #byGroup = new Map<string, Waiting[]>();

  /** `id` for compares, else null. */
  wait<K extends ReplyKind>(groupId: string, kind: K, id: number | null, untilMs: number): Promise<Reply<K>> {
    return new Promise<TargetMessage>((resolve, reject) => {
      const waiting = { kind, id, untilMs, resolve, reject };
      const others = this.#byGroup.get(groupId);
      if (others === undefined) this.#byGroup.set(groupId, [waiting]);
      else others.push(waiting);
    }) as Promise<Reply<K>>;
  }

  /** False when nobody asked. */
  answer(reply: Reply<ReplyKind>): boolean {
    const waiting = this.#byGroup.get(reply.group);
    const at = waiting?.findIndex(({ kind, id }) => kind === reply.t && (reply.t !== 'differs' || id === reply.id)) ?? -1;
    if (waiting === undefined || at < 0) return false;
    const [found] = waiting.splice(at, 1);
    if (waiting.length === 0) this.#byGroup.delete(reply.group);
    found!.resolve(reply);
    return true;
  }

  /** The group was held or refused: none of its requests is answered any more. */
  stop(groupId: string, fault: Fault): void {
    const waiting = this.#byGroup.get(groupId) ?? [];
    this.#byGroup.delete(groupId);
    for (const { reject } of waiting) reject(fault);
  }

  fail(fault: Fault): void {
    for (const groupId of [...this.#byGroup.keys()]) this.stop(groupId, fault);
  }

  /** What has waited too long, or null. */
  overdue(nowMs: number): ReplyKind | null {
    for (const waiting of this.#byGroup.values()) for (const { kind, untilMs } of waiting) if (nowMs > untilMs) return kind;
    return null;
  }
}
