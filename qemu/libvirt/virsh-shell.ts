/**
 * One `virsh` that stays, and sends QMP commands to a running domain one after the other (`qemu-monitor-command`): a process for each would cost more than all the rest. It knows
 * nothing of events. Invariant: answers belong to commands by their order, and a shell that lost count is over: a command of which libvirt itself says no (its connection lost, the
 * domain gone, its lock not to be had) may have been carried out or not, so it ends the shell.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { Fault } from '../../journal/fault.ts';
import { LineSplitter } from '../line-splitter.ts';
import { saidBy, virshEnvironment } from './virsh.ts';

/** As QMP's own client: node lists of large guests are a few MiB. */
const lineBytesMax = 16 * 1024 * 1024;
const saidBytesMax = 4096;

export type Answer = Readonly<Record<string, unknown>>;

interface UnderWay { readonly mark: string; answer: Answer | null; resolve(answer: Answer): void; reject(fault: Fault): void }

export class VirshShell {
  /** Resolves once, with why, when nothing more is answered. */
  readonly closed: Promise<Fault>;
  readonly #uri: string;
  /** A number of libvirt's: no domain that is started later gets it. */
  readonly #domainId: number;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #underWay: UnderWay[] = [];
  /** What it echoes of a command is never taken for an answer: an answer is a whole line, and marks cannot be guessed. */
  readonly #mark = randomBytes(8).toString('hex');
  #count = 0;
  #said = '';
  #end: Fault | null = null;
  #settleClosed!: (fault: Fault) => void;

  constructor(uri: string, domainId: number) {
    this.#uri = uri;
    this.#domainId = domainId;
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    const child = this.#child = spawn('virsh', ['-c', uri], { env: virshEnvironment(), stdio: 'pipe' });
    const splitter = new LineSplitter(lineBytesMax);
    child.stdout.on('data', (chunk: Buffer) => {
      if (!splitter.push(chunk, (line) => { this.#handle(line); return this.#end === null; })) this.fail(new Fault('QMP_GARBAGE', `virsh said a line longer than ${lineBytesMax} bytes`, { uri }));
    });
    child.stderr.on('data', (chunk: Buffer) => { this.#said = `${this.#said}${chunk.toString('utf8')}`.slice(-saidBytesMax); });
    child.stdin.on('error', () => undefined); // heard of by its end
    child.once('error', (error) => this.fail(new Fault('LIBVIRT_UNREACHABLE', `virsh cannot be started: ${error.message}`, { uri }, error)));
    child.once('close', () => this.fail(new Fault('QMP_CLOSED', `virsh ended: ${saidBy(this.#said)}`, { uri })));
  }

  /** QEMU's answer, whether `return` or `error`. Faults: QMP_CLOSED, QMP_GARBAGE. */
  send(command: Readonly<Record<string, unknown>>): Promise<Answer> {
    if (this.#end !== null) return Promise.reject(this.#end);
    this.#count += 1;
    const mark = `${this.#mark}-${this.#count}`;
    return new Promise((resolve, reject) => {
      this.#underWay.push({ mark, answer: null, resolve, reject });
      this.#child.stdin.write(`qemu-monitor-command ${this.#domainId} ${quoted(JSON.stringify(command))}\necho ${mark}\n`);
    });
  }

  /** Ends it; the first reason stands. */
  fail(fault: Fault): void {
    if (this.#end !== null) return;
    this.#end = fault;
    this.#child.kill('SIGKILL');
    for (const { reject } of this.#underWay.splice(0)) reject(fault);
    this.#settleClosed(fault);
  }

  #handle(line: string): void {
    const first = this.#underWay[0];
    if (first === undefined) return; // its greeting
    if (line.startsWith('{')) {
      if (first.answer !== null) return this.fail(new Fault('QMP_GARBAGE', 'virsh gave two answers to one command', { uri: this.#uri }));
      try {
        first.answer = JSON.parse(line) as Answer;
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        this.fail(new Fault('QMP_GARBAGE', `virsh said what is no answer: ${line.slice(0, 100)}`, { uri: this.#uri }));
      }
      return;
    }
    if (line !== first.mark) return;
    if (first.answer === null) return this.#refused();
    this.#underWay.shift();
    first.resolve(first.answer);
  }

  /** What it says of that may come a moment later, by another pipe. */
  #refused(): void {
    assert(this.#underWay.length > 0);
    const refuse = (): void => this.fail(new Fault('QMP_CLOSED', `libvirt carried out no command of ours: ${saidBy(this.#said)}`, { uri: this.#uri, said: saidBy(this.#said) }));
    if (this.#said !== '') return refuse();
    setTimeout(refuse, 100);
  }
}

/** For virsh's command line: within double quotes a backslash takes the next character as it is. JSON has no control characters, and what is not ASCII its line editor would take for keys. */
function quoted(json: string): string {
  const ascii = json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return `"${ascii.replace(/["\\]/g, '\\$&')}"`;
}
