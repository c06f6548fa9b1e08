/**
 * What a running domain's QEMU says by itself, as libvirt passes it on (`virsh qemu-monitor-event`), and the end of the domain (`virsh event`). Two processes that stay. Invariant:
 * events come in QEMU's order, none is left out between the first that is heard and `closed`: a libvirtd that ends ends both.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { Fault } from '../../journal/fault.ts';
import { LineSplitter } from '../line-splitter.ts';
import type { QmpEvent } from '../qmp.ts';
import { saidBy, virshEnvironment } from './virsh.ts';

const lineBytesMax = 1024 * 1024;
const saidBytesMax = 4096;

export class VirshEvents {
  readonly closed: Promise<Fault>;
  readonly #uri: string;
  readonly #children: ChildProcess[];
  readonly #onEvent: (event: QmpEvent) => void;
  #isOver = false;
  #settleClosed!: (fault: Fault) => void;

  constructor(uri: string, domainId: number, onEvent: (event: QmpEvent) => void) {
    this.#uri = uri;
    this.#onEvent = onEvent;
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    this.#children = [
      this.#listen(['qemu-monitor-event', '--domain', String(domainId), '--loop'], (line) => this.#monitorEvent(line)),
      this.#listen(['event', '--domain', String(domainId), '--event', 'lifecycle', '--loop'], (line) => this.#lifecycleEvent(line)),
    ];
  }

  close(fault: Fault): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const child of this.#children) child.kill('SIGKILL');
    this.#settleClosed(fault);
  }

  #listen(args: readonly string[], onLine: (line: string) => void): ChildProcess {
    const child = spawn('virsh', ['-q', '-c', this.#uri, ...args], { env: virshEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
    const splitter = new LineSplitter(lineBytesMax);
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (!splitter.push(chunk, (line) => { onLine(line); return !this.#isOver; })) this.close(new Fault('QMP_GARBAGE', `virsh said a line longer than ${lineBytesMax} bytes`, { uri: this.#uri }));
    });
    child.stderr.on('data', (chunk: Buffer) => { said = `${said}${chunk.toString('utf8')}`.slice(-saidBytesMax); });
    child.once('error', (error) => this.close(new Fault('LIBVIRT_UNREACHABLE', `virsh cannot be started: ${error.message}`, { uri: this.#uri }, error)));
    child.once('close', () => this.close(new Fault('QMP_CLOSED', `libvirt’s events of the domain ended: ${saidBy(said)}`, { uri: this.#uri })));
    return child;
  }

  #monitorEvent(line: string): void {
    if (this.#isOver || !line.startsWith('event ')) return;
    const event = parseMonitorEvent(line);
    if (event === undefined) return this.close(new Fault('QMP_GARBAGE', `virsh said what is no event: ${line.slice(0, 100)}`, { uri: this.#uri }));
    this.#onEvent(event);
  }

  /** `event 'lifecycle' for domain 'web1': Stopped Destroyed` (virsh-domain-event.c): that QEMU is gone then. */
  #lifecycleEvent(line: string): void {
    const [, what] = /^event 'lifecycle' for domain .*: (\w+)(?: .*)?$/.exec(line) ?? [];
    if (what === 'Stopped' || what === 'Crashed') this.close(new Fault('QMP_CLOSED', `the domain ended (${line.slice(line.lastIndexOf(': ') + 2)})`, { uri: this.#uri }));
  }
}

/** `event NAME at SECONDS.MICROSECONDS for domain 'NAME': DETAILS` (virsh-domain-event.c). The details are JSON; no event's is left out, its data may be. Pure. */
export function parseMonitorEvent(line: string): QmpEvent | undefined {
  const found = /^event (\w+) at (\d+)\.(\d+) for domain (?:'.*?'|\S+)(?:: (.*))?$/.exec(line);
  if (found === null) return undefined;
  const [, event, seconds, microseconds, details] = found;
  const data = parseDetails(details);
  return data === undefined ? undefined : { event: event!, data, atMs: Number(seconds) * 1000 + Number(microseconds) / 1000 };
}

function parseDetails(details: string | undefined): Readonly<Record<string, unknown>> | undefined {
  if (details === undefined || !details.startsWith('{')) return {};
  try {
    return JSON.parse(details) as Readonly<Record<string, unknown>>;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
