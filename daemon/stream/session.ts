/** What the supervisor of a group sees of the connection to a target. The real one is target-link.ts. */
import type { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import type { GroupAnnouncement, GroupHolding, HandoverAnswer, HandoverOrder } from '../../journal/wire.ts';

export interface SessionListener {
  /** Durable at the target. `part` for a part of an unsealed delta. */
  onAck?(ack: { readonly term: number; readonly point: number; readonly part?: number }): void;
  onApplied?(applied: { readonly term: number; readonly point: number }): void;
  /** The target is full: stop sending until released, then announce again. */
  onHeld?(code: string, message: string): void;
  onReleased?(): void;
  /** The group is refused; the connection stays. */
  onRefused?(fault: Fault): void;
  /** A step of a planned failover. */
  onOrder?(order: HandoverOrder): void;
  /** The session is over. Unlike a `then` on `closed` this leaves nothing behind when the listening ends. */
  onClosed?(fault: Fault): void;
}

/** One connection, authenticated. When it is over, all its promises reject and a new session must be announced to anew. */
export interface TargetSession {
  readonly closed: Promise<Fault>;
  announce(announcement: GroupAnnouncement): Promise<GroupHolding>;
  listen(groupId: string, listener: SessionListener): () => void;
  /**
   * Hands over one record. Resolves when there is credit and socket room for another. The buffer belongs to the session until
   * `onWritten` is called, if it ever is: it may then be used again. Rejects with the signal's reason when it comes before there
   * was room; the record is then not sent, nor may any behind it be. `isPass`: of a first sync or resync, which yields to the live streams of other groups.
   */
  send(record: RecordView, onWritten?: () => void, signal?: AbortSignal, isPass?: boolean): Promise<void>;
  seedBegin(groupId: string, deltaId: string): Promise<GroupHolding>;
  seedEnd(groupId: string): Promise<void>;
  /** '1' per block that differs at the target. `hashes`: 32 bytes per block. Several may be under way. */
  compare(request: { readonly groupId: string; readonly disk: number; readonly offset: number; readonly length: number; readonly blockBytes: number; readonly hashes: Buffer }): Promise<string>;
  forget(groupId: string): Promise<void>;
  /** The group belongs to another source from `term` on; durable at the target when it resolves. */
  handOver(groupId: string, term: number, sourceId: string): Promise<void>;
  /** Says a step of a planned failover. Whether it arrives shows in what the target does. */
  answer(answer: HandoverAnswer): void;
  close(): void;
}

export interface LinkReport {
  readonly state: 'down' | 'connecting' | 'up';
  /** Wall clock since when it is in this state, ms. */
  readonly sinceMs: number;
  readonly lastFault: { readonly code: string; readonly message: string; readonly atMs: number } | null;
  readonly sentBytes: number;
  readonly reconnects: number;
  /** Of the session that stands: records that wait for credit or room, and bytes that the kernel has not taken yet. */
  readonly queue?: { readonly waitingRecords: number; readonly unwrittenBytes: number };
}

/** Keeps one connection to one target alive, with backoff and jitter. */
export interface TargetLink {
  /** The current session, or the next one once it stands. Rejects with the signal's reason when aborted. */
  session(signal: AbortSignal): Promise<TargetSession>;
  report(): LinkReport;
  close(): Promise<void>;
}
