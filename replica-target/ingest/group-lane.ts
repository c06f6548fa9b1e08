/**
 * One group's traffic on one connection: everything that concerns the group passes here in the order in which it arrived,
 * into the group's store, and acknowledgements come out. It knows no socket, and decides nothing about records that the
 * store decides. Invariants: an `ack` leaves only with a Durable that the store handed out; once something failed, nothing
 * of the group reaches the store until the source announces it again, and what is dropped still gives its credit back.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import type { HandoverAnswer, SourceMessage, TargetMessage } from '../../journal/wire.ts';
import type { Durable, GroupRegistry, GroupStore } from '../store/store.ts';
import { planConsequence } from './consequence-plan.ts';
import type { SourceOrders } from './source-orders.ts';

/**
 * Records given to the store and not yet answered, and their bytes: two of the journal's writes, so that the next one is ready when
 * one ends. Counted in records alone, records of 64 KiB made small writes, each with a turn of the event loop (seen: 160 MB/s).
 */
const recordsUnderWayMax = 512;
const bytesUnderWayMax = 8 * 1024 * 1024;
const comparesUnderWayMax = 8;
/** How often a full store is asked whether it has space again, ms. */
const releasePollMs = 1_000;

export type GroupMessage = Extract<SourceMessage, { readonly group: string }>;

/** What a lane needs of its connection. After the connection is over, calls do nothing. */
export interface LanePort {
  send(message: TargetMessage): void;
  /** Bytes of records that are done with. */
  consumed(bytes: number): void;
  controlDone(bytes: number): void;
  /** Counts and logs a refusal. */
  count(fault: Fault): void;
  /** Ends the connection, counting the fault. */
  fail(fault: Fault): void;
}

export interface LaneOptions {
  readonly groupId: string;
  readonly sourceId: string;
  readonly registry: GroupRegistry;
  readonly port: LanePort;
  /** What the target asks of the group's source goes out here once it has announced the group. */
  readonly orders: SourceOrders;
  readonly clock: Clock;
  readonly log: Logger;
  /** Resolves when an earlier connection of the same source has let go of its groups. */
  readonly ready: Promise<void>;
  /** Aborted when the connection is over. */
  readonly signal: AbortSignal;
}

type Item =
  | { readonly kind: 'record'; readonly record: RecordView }
  | { readonly kind: 'message'; readonly message: GroupMessage; readonly bytes: number };

type Outcome = { readonly isDone: true; readonly durable: Durable | null } | { readonly isDone: false; readonly error: unknown };

export class GroupLane {
  readonly #o: LaneOptions;
  #store: GroupStore | null = null;
  #state: 'unannounced' | 'open' | 'held' | 'refused' = 'unannounced';
  #isSeeding = false;
  #unlisten: () => void = () => undefined;
  #detach: () => void = () => undefined;
  readonly #queue: Item[] = [];
  #isRunning = false;
  #run: Promise<void> = Promise.resolve();
  /** What the source was last told when the group was stopped; said again to requests that come behind it. */
  #stopMessage: TargetMessage | null = null;
  #holds = 0;
  /** Outcomes of records are looked at in the order in which they arrived. */
  #outcomes: Promise<void> = Promise.resolve();
  #recordsUnderWay = 0;
  #bytesUnderWay = 0;
  #comparesUnderWay = 0;
  /** Never reject. */
  readonly #compares = new Set<Promise<void>>();
  #onRoom: () => void = () => undefined;

  constructor(options: LaneOptions) {
    this.#o = options;
  }

  record(record: RecordView): void {
    this.#push({ kind: 'record', record });
  }

  message(message: GroupMessage, bytes: number): void {
    this.#push({ kind: 'message', message, bytes });
  }

  /** The connection is over: what has arrived is finished, then what no part or seal covers is cut off. Never rejects. */
  async finish(): Promise<void> {
    await this.#run;
    await this.#outcomes;
    await Promise.all(this.#compares);
    this.#unlisten();
    this.#detach();
    if (this.#store === null) return;
    try {
      await this.#store.cutTorn();
    } catch (error) {
      this.#o.port.count(this.#faultOf(error));
    }
  }

  #push(item: Item): void {
    this.#queue.push(item);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#run = this.#drain();
  }

  async #drain(): Promise<void> {
    await this.#o.ready;
    while (this.#queue.length > 0) {
      for (const item of this.#queue.splice(0)) await this.#handle(item);
    }
    this.#isRunning = false;
  }

  async #handle(item: Item): Promise<void> {
    if (item.kind === 'record') return this.#take(item.record);
    const { message, bytes } = item;
    if (message.t === 'compare') {
      while (this.#comparesUnderWay >= comparesUnderWayMax) await this.#room();
      const compare = this.#compare(message, bytes);
      this.#compares.add(compare);
      void compare.then(() => this.#compares.delete(compare));
      return;
    }
    await this.#outcomes;
    await this.#answer(message);
    this.#o.port.controlDone(bytes);
  }

  async #take(record: RecordView): Promise<void> {
    const { header, bytes } = record;
    while (this.#recordsUnderWay >= recordsUnderWayMax || this.#bytesUnderWay >= bytesUnderWayMax) await this.#room();
    if (this.#state !== 'open' || this.#store === null) {
      this.#o.port.consumed(bytes.length);
      return;
    }
    this.#recordsUnderWay += 1;
    this.#bytesUnderWay += bytes.length;
    const outcome = this.#give(this.#store, record).then(
      (durable): Outcome => ({ isDone: true, durable }),
      (error: unknown): Outcome => ({ isDone: false, error }),
    );
    this.#outcomes = this.#outcomes.then(async () => {
      const { durable, error } = { durable: null, error: null, ...(await outcome) };
      this.#recordsUnderWay -= 1;
      this.#bytesUnderWay -= bytes.length;
      this.#onRoom();
      this.#o.port.consumed(bytes.length);
      if (durable !== null) this.#o.port.send({ t: 'ack', group: header.groupId, ...durable });
      // Those behind the first failure fail because of it; they say nothing new.
      if (error !== null && this.#state === 'open') this.#fail(error);
    });
  }

  async #give(store: GroupStore, record: RecordView): Promise<Durable | null> {
    const { kind, point } = record.header;
    if (point !== 0) return store.append(record);
    if (!this.#isSeeding || (kind !== 'data' && kind !== 'zero')) {
      throw new Fault('RECORD_MISPLACED', `a ${kind} record of point 0 ${this.#isSeeding ? 'has no place in' : 'outside'} a first sync`, { group: record.header.groupId });
    }
    await store.seedRecord(record);
    return null;
  }

  #room(): Promise<void> {
    return new Promise((resolve) => { this.#onRoom = resolve; });
  }

  async #answer(message: Exclude<GroupMessage, { t: 'compare' }>): Promise<void> {
    try {
      switch (message.t) {
        case 'announce': return await this.#announce(message);
        case 'seedBegin': {
          const store = this.#announced();
          if (store === null) return;
          await store.seedBegin(message.deltaId);
          this.#isSeeding = true;
          return this.#o.port.send({ t: 'group', ...store.holding() });
        }
        case 'seedEnd': {
          const store = this.#announced();
          if (store === null) return;
          await store.seedEnd();
          this.#isSeeding = false;
          return this.#o.port.send({ t: 'seeded', group: message.group });
        }
        case 'forget': return await this.#forget();
        case 'yielded': case 'kept': case 'relinquished': return this.#answered(message);
        case 'handedOver': return await this.#handOver(message);
        default: return message satisfies never;
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #announce(message: Extract<SourceMessage, { t: 'announce' }>): Promise<void> {
    const { t: _, ...announcement } = message;
    this.#unlisten();
    this.#unlisten = () => undefined;
    this.#isSeeding = false;
    this.#detach();
    if (this.#isOwner()) this.#o.orders.announced(this.#o.groupId);
    const store = await this.#o.registry.announce(this.#o.sourceId, announcement);
    // An announcement starts the group anew: a source that gave up in the middle of a delta goes on after its last durable part.
    await store.cutTorn();
    this.#store = store;
    this.#state = 'open';
    this.#detach = this.#o.orders.attach(this.#o.groupId, (order) => this.#o.port.send(order));
    this.#unlisten = store.onApplied(({ term, point }) => this.#o.port.send({ t: 'applied', group: this.#o.groupId, term, point }));
    this.#o.port.send({ t: 'group', ...store.holding() });
  }

  /** Also of a source that does not announce the group any more, as it has let go of it. */
  #answered(answer: HandoverAnswer): void {
    // One that let go may say so again when the group is another's already, of which its guest did not run yet.
    const wasOwner = answer.t === 'relinquished' && (this.#known()?.report().formerSourceIds.includes(this.#o.sourceId) ?? false);
    if (!this.#isOwner() && !wasOwner) throw new Fault('GROUP_FOREIGN', `group ${answer.group} belongs to another source`, { group: answer.group });
    this.#o.orders.answered(answer);
  }

  /** Once more of a source that did not hear the answer: it is the owner no more, and nothing changes. */
  async #handOver({ group, term, sourceId }: Extract<SourceMessage, { t: 'handedOver' }>): Promise<void> {
    const store = this.#known();
    if (store === null) throw new Fault('GROUP_UNKNOWN', `group ${group} is not known here`, { group });
    await store.handOver(this.#o.sourceId, term, sourceId);
    this.#o.orders.handedOver(group);
    this.#o.port.send({ t: 'group', ...store.holding() });
  }

  #isOwner(): boolean {
    return this.#known()?.report().sourceId === this.#o.sourceId;
  }

  /** Announced here or not. */
  #known(): GroupStore | null {
    const store = this.#o.registry.find(this.#o.groupId);
    return store?.groupId === this.#o.groupId ? store : null;
  }

  async #forget(): Promise<void> {
    const { groupId, sourceId, registry, port } = this.#o;
    const store = registry.find(groupId);
    if (store === null || store.groupId !== groupId) throw new Fault('GROUP_UNKNOWN', `group ${groupId} is not known here`, { group: groupId });
    if (store.report().sourceId !== sourceId) throw new Fault('GROUP_FOREIGN', `group ${groupId} belongs to another source`, { group: groupId });
    const { state, name, term } = store.report();
    if (state === 'failed-over') throw new Fault('GROUP_FAILED_OVER', `${name} has failed over: what it runs on is not forgotten at its old source's wish`, { group: groupId, term });
    if (store.report().newest !== null) throw new Fault('FORGET_REFUSED', `${name} has points: what is kept of it is the target’s own matter`, { group: groupId });
    // The files are not taken away under a comparison.
    await Promise.all(this.#compares);
    this.#unlisten();
    this.#unlisten = () => undefined;
    this.#store = null;
    this.#state = 'unannounced';
    await registry.forget(groupId);
    port.send({ t: 'forgotten', group: groupId });
  }

  /** The store has been given every record that came before, and answers as if all of them were in the replica (PROTOCOL.md, "Compare"). */
  async #compare(message: Extract<SourceMessage, { t: 'compare' }>, bytes: number): Promise<void> {
    this.#comparesUnderWay += 1;
    try {
      const store = this.#announced();
      if (store === null) return;
      const { disk, offset, length, blockBytes } = message;
      const hashes = Buffer.from(message.hashes, 'base64');
      if (hashes.length !== Math.ceil(length / blockBytes) * 32) {
        throw new Fault('WIRE_GARBAGE', `${hashes.length} bytes of hashes for ${length} bytes in blocks of ${blockBytes}`, { group: message.group });
      }
      const bits = await store.compare(disk, offset, length, blockBytes, hashes);
      this.#o.port.send({ t: 'differs', group: message.group, id: message.id, bits });
    } catch (error) {
      if (this.#state === 'open' || this.#state === 'unannounced') this.#fail(error);
    } finally {
      this.#comparesUnderWay -= 1;
      this.#o.port.controlDone(bytes);
      this.#onRoom();
    }
  }

  /** Null when the group was stopped; the source is then told so once more, because it waits for an answer. */
  #announced(): GroupStore | null {
    if (this.#state === 'open' && this.#store !== null) return this.#store;
    if (this.#stopMessage === null || this.#state === 'unannounced') {
      throw new Fault('GROUP_UNKNOWN', `group ${this.#o.groupId} was not announced on this connection`, { group: this.#o.groupId });
    }
    this.#o.port.send(this.#stopMessage);
    return null;
  }

  #faultOf(error: unknown): Fault {
    if (isFault(error)) return error;
    this.#o.log.error({ err: error, group: this.#o.groupId }, 'the store failed in a way that it does not name');
    return new Fault('INTERNAL', 'the target failed; its log says more', { group: this.#o.groupId }, error);
  }

  #fail(error: unknown): void {
    const fault = this.#faultOf(error);
    const { port, groupId } = this.#o;
    const { code, message } = fault;
    switch (planConsequence(code)) {
      case 'held':
        this.#state = 'held';
        port.count(fault);
        this.#stop({ t: 'held', group: groupId, code, message: message.slice(0, 2000) });
        void this.#awaitRelease();
        return;
      case 'refused': {
        this.#state = 'refused';
        port.count(fault);
        const { term } = fault.facts;
        this.#stop({ t: 'refused', group: groupId, code, message: message.slice(0, 2000), ...(typeof term === 'number' && term >= 1 ? { term } : {}) });
        return;
      }
      case 'closed':
        this.#state = 'refused';
        port.fail(fault);
        return;
    }
  }

  #stop(message: TargetMessage): void {
    this.#stopMessage = message;
    this.#o.port.send(message);
  }

  async #awaitRelease(): Promise<void> {
    const { clock, signal, port, groupId } = this.#o;
    this.#holds += 1;
    const hold = this.#holds;
    do {
      if (!(await pausedFor(clock, releasePollMs, signal))) return;
      if (this.#state !== 'held' || this.#holds !== hold) return;
    } while (this.#store !== null && this.#store.report().held !== null);
    port.send({ t: 'released', group: groupId });
  }
}

/** False when the signal ended the pause. */
export async function pausedFor(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.delay(ms, signal);
    return true;
  } catch (error) {
    if (!signal.aborted) throw error;
    return false;
  }
}
