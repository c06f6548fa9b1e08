/**
 * A QMP connection through libvirtd, for a running domain that has no monitor of ours: commands by `qemu-monitor-command`, events by `qemu-monitor-event`, which libvirt keeps for
 * this and marks the domain as tainted for.
 *
 * The two come by different streams, so that an event may be late beside a reply that followed it. What holds qmp.ts's promise is a barrier: behind each reply QEMU is given a job
 * that fails at once (`blockdev-create` of a file that cannot be), whose event QEMU sends after all that came before that reply; libvirt passes events on in order; and no reply
 * is handed out before the event of a barrier that was sent after it. Replies that come meanwhile share the next one. A libvirtd that is restarted loses events: then the streams
 * end, and with them the connection.
 */
import { randomBytes } from 'node:crypto';
import { Fault } from '../../journal/fault.ts';
import { textOf } from '../peer-text.ts';
import type { QmpConnectOptions } from '../qmp-client.ts';
import type { QmpConnection, QmpEvent } from '../qmp.ts';
import { isOfShape } from '../reply-shapes.ts';
import { VirshEvents } from './virsh-events.ts';
import { VirshShell, type Answer } from './virsh-shell.ts';

/** For the first barrier: three processes start, and libvirt may be busy. */
const connectMsDefault = 15_000;
/** As for a socket of QEMU's: it may stand still while it drains slow disks; libvirt's own wait for its domain lock comes on top. */
const commandMsDefault = 60_000;
/** Until the event stream is there, a barrier may have been too early to be heard of. */
const barrierAgainMs = 150;
/** No file can be made beneath what is no folder. */
const impossiblePath = '/dev/null/afterimage';

/** Of a prefix of its own: what sweeps our jobs away after a crash must not meet these. */
const barrierPrefix = 'af-order-';

interface UnderWay { readonly command: string; readonly args: Readonly<Record<string, unknown>> | undefined; readonly timer: NodeJS.Timeout; readonly resolve: (value: unknown) => void; readonly reject: (fault: Fault) => void }
interface Waiting { readonly asked: UnderWay; readonly answer: Answer }

export interface LibvirtDomain { readonly uri: string; readonly domainId: number; /** For people. */ readonly name: string }

/** Faults: QMP_UNREACHABLE, LIBVIRT_UNREACHABLE, QMP_CLOSED. */
export async function connectThroughLibvirt(domain: LibvirtDomain, options: QmpConnectOptions = {}): Promise<QmpConnection> {
  options.signal?.throwIfAborted();
  const monitor = new LibvirtMonitor(domain, options.commandTimeoutMs ?? commandMsDefault);
  const timeoutMs = options.connectTimeoutMs ?? connectMsDefault;
  const timer = setTimeout(() => monitor.fail(new Fault('QMP_UNREACHABLE', `libvirt at ${domain.uri} gave no access to the monitor of ${domain.name} within ${timeoutMs} ms`, { domain: domain.name, timeoutMs })), timeoutMs);
  const abort = (): void => monitor.close();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    await monitor.open();
    options.signal?.throwIfAborted();
    return monitor;
  } catch (error) {
    monitor.close();
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

class LibvirtMonitor implements QmpConnection {
  readonly closed: Promise<Fault>;
  version = { major: 0, minor: 0, micro: 0 };
  readonly #name: string;
  readonly #commandTimeoutMs: number;
  readonly #shell: VirshShell;
  readonly #events: VirshEvents;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #underWay = new Set<UnderWay>();
  /** Replies that are there and wait for a barrier. */
  #replies: Waiting[] = [];
  /** Those that the barrier under way is for. */
  #guarded: Waiting[] = [];
  readonly #stamp = randomBytes(6).toString('hex');
  #barrier: string | null = null;
  #barrierCount = 0;
  #isOpen = false;
  #end: Fault | null = null;
  #settleClosed!: (fault: Fault) => void;

  constructor({ uri, domainId, name }: LibvirtDomain, commandTimeoutMs: number) {
    this.#name = name;
    this.#commandTimeoutMs = commandTimeoutMs;
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    this.#events = new VirshEvents(uri, domainId, (event) => this.#deliver(event));
    this.#shell = new VirshShell(uri, domainId);
    void this.#shell.closed.then((fault) => this.fail(fault));
    void this.#events.closed.then((fault) => this.fail(fault));
  }

  /** Resolves when events are heard of. */
  async open(): Promise<void> {
    const again = setInterval(() => { if (!this.#isOpen) this.#sendBarrier(); }, barrierAgainMs);
    try {
      const { qemu } = await this.execute<{ qemu: { major: number; minor: number; micro: number } }>('query-version');
      this.version = { major: qemu.major, minor: qemu.minor, micro: qemu.micro };
    } finally {
      clearInterval(again);
    }
    // What connections left that were cut off: no job of this kind does anything any more.
    for (const { id, status } of await this.execute<{ id: string; status: string }[]>('query-jobs')) if (id.startsWith(barrierPrefix) && status === 'concluded') this.#dismiss(id);
  }

  execute<T = unknown>(command: string, args?: Readonly<Record<string, unknown>>, options?: { readonly timeoutMs?: number }): Promise<T> {
    const end = this.#end;
    if (end !== null) return Promise.reject(this.#notDone(command, end));
    const timeoutMs = options?.timeoutMs ?? this.#commandTimeoutMs;
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.#timeOut(asked, timeoutMs), timeoutMs);
      const asked: UnderWay = { command, args, timer, resolve: resolve as (value: unknown) => void, reject };
      this.#underWay.add(asked);
      this.#shell.send(args === undefined ? { execute: command } : { execute: command, arguments: args }).then((answer) => {
        this.#replies.push({ asked, answer });
        if (this.#barrier === null) this.#sendBarrier();
      }, () => undefined); // the end of the shell is that of the connection
    });
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    const entry = (event: QmpEvent): void => listener(event);
    this.#listeners.add(entry);
    return () => { this.#listeners.delete(entry); };
  }

  close(): void {
    this.fail(new Fault('QMP_CLOSED', `the connection to ${this.#name} was closed by this side`, { domain: this.#name }));
  }

  fail(fault: Fault): void {
    if (this.#end !== null) return;
    this.#end = fault;
    this.#shell.fail(fault);
    this.#events.close(fault);
    for (const { command, timer, reject } of this.#underWay) {
      clearTimeout(timer);
      reject(this.#notDone(command, fault));
    }
    this.#underWay.clear();
    this.#listeners.clear();
    this.#settleClosed(fault);
  }

  #timeOut(late: UnderWay, timeoutMs: number): void {
    this.#underWay.delete(late);
    const fault = new Fault('QMP_TIMEOUT', `no answer to ${late.command} from ${this.#name} within ${timeoutMs} ms`, { domain: this.#name, command: late.command, timeoutMs });
    late.reject(fault);
    this.fail(fault);
  }

  #notDone(command: string, end: Fault): Fault {
    return new Fault('QMP_CLOSED', `${command} was not answered: ${end.message}`, { domain: this.#name, command, reason: end.code }, end);
  }

  #settle({ asked, answer }: Waiting): void {
    if (!this.#underWay.delete(asked)) return;
    const { command, args, timer, resolve, reject } = asked;
    clearTimeout(timer);
    if (!('error' in answer)) {
      if (isOfShape(command, args, answer['return'])) return resolve(answer['return']);
      const fault = new Fault('QMP_GARBAGE', `${this.#name} answered ${command} with what is no answer to it`, { domain: this.#name, command });
      reject(fault);
      return this.fail(fault);
    }
    const error = asObject(answer['error']);
    const description = textOf(error?.['desc']);
    reject(new Fault('QMP_COMMAND', `QEMU refused ${command}: ${description}`, { command, class: textOf(error?.['class']), description, domain: this.#name }));
  }

  /** Until the connection is open, one that was not heard of is followed by another. */
  #sendBarrier(): void {
    if (this.#end !== null) return;
    this.#guarded.push(...this.#replies.splice(0));
    this.#barrierCount += 1;
    const id = this.#barrier = `${barrierPrefix}${this.#stamp}-${this.#barrierCount}`;
    this.#shell.send({ execute: 'blockdev-create', arguments: { 'job-id': id, options: { driver: 'file', filename: impossiblePath, size: 0 } } }).then((answer) => {
      if ('error' in answer) this.fail(new Fault('GUEST_UNSUITED', `QEMU refused what orders events and replies: ${textOf(asObject(answer['error'])?.['desc'])}`, { domain: this.#name }));
    }, () => undefined);
  }

  #dismiss(id: string): void {
    // Refused when another connection of ours was faster.
    this.#shell.send({ execute: 'job-dismiss', arguments: { id } }).catch(() => undefined);
  }

  #deliver(event: QmpEvent): void {
    if (this.#end !== null) return;
    const id = event.event === 'JOB_STATUS_CHANGE' ? event.data['id'] : undefined;
    if (typeof id === 'string' && id.startsWith(barrierPrefix)) return this.#barrierEvent(id, event.data['status']);
    for (const listener of [...this.#listeners]) listener(event);
  }

  #barrierEvent(id: string, status: unknown): void {
    if (!id.startsWith(`${barrierPrefix}${this.#stamp}-`)) return; // of another connection of ours
    // It keeps its place in QEMU's list until it is dismissed.
    if (status === 'concluded') this.#dismiss(id);
    if (status !== 'created' || id !== this.#barrier) return;
    this.#isOpen = true;
    this.#barrier = null;
    for (const waiting of this.#guarded.splice(0)) this.#settle(waiting);
    if (this.#replies.length > 0) this.#sendBarrier();
  }
}

function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Readonly<Record<string, unknown>> : undefined;
}
