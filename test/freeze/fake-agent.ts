/**
 * A peer in place of QEMU's agent, for what the real one does not do on demand: silence at a chosen command, slowness, garbage,
 * answers of before. It speaks as qemu-ga 7.2 was seen to: an error for the 0xFF ahead of a sync, 0xFF ahead of the sync's reply,
 * no freeze while frozen. Not a suite.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface AgentCommand { readonly execute: string; readonly arguments?: { readonly id?: number } }

export class FakeAgent {
  readonly folder: string;
  readonly path: string;
  /** Names, in the order in which they were carried out. */
  readonly done: string[] = [];
  isFrozen = false;
  fileSystems = 2;
  /** Asked about each command before it is carried out. While it has not resolved, those behind wait: the agent has one thread. */
  before: (command: AgentCommand) => Promise<void> | void = () => undefined;
  /** Called with each reply; what it returns is sent. */
  reply: (command: AgentCommand, bytes: Buffer) => Buffer | null = (_command, bytes) => bytes;
  /** Sent to each client first: what the one before did not read. */
  greeting: Buffer = Buffer.alloc(0);
  connections = 0;
  #client: Socket | null = null;
  #line: Promise<void> = Promise.resolve();
  readonly #close: () => void;

  private constructor(t: { teardown(end: () => void): unknown }) {
    this.folder = mkdtempSync(join(tmpdir(), 'af-agent-'));
    this.path = join(this.folder, 'agent');
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      this.connections += 1;
      this.#client = socket;
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => { sockets.delete(socket); });
      if (this.greeting.length > 0) socket.write(this.greeting);
      let held = '';
      socket.on('data', (chunk: Buffer) => {
        held += chunk.toString('latin1');
        for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
          const line = held.slice(0, end);
          held = held.slice(end + 1);
          this.#line = this.#line.then(() => this.#obey(line));
        }
      });
    });
    this.#close = () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    };
    this.listening = new Promise((resolve) => server.listen(this.path, resolve));
    t.teardown(() => {
      this.#close();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  readonly listening: Promise<void>;

  static async start(t: { teardown(end: () => void): unknown }): Promise<FakeAgent> {
    const agent = new FakeAgent(t);
    await agent.listening;
    return agent;
  }

  /** As when its QEMU ends. */
  end(): void {
    this.#close();
  }

  /** As when the guest agent's connection breaks: the client's socket is closed. */
  hangUp(): void {
    this.#client?.destroy();
  }

  count(command: string): number {
    return this.done.filter((name) => name === command).length;
  }

  async #obey(line: string): Promise<void> {
    const isFlushed = line.startsWith('\u00ff');
    const command = JSON.parse(isFlushed ? line.slice(1) : line) as AgentCommand;
    await this.before(command);
    this.done.push(command.execute);
    const answer = this.#answer(command);
    const bytes = Buffer.concat([
      Buffer.from(isFlushed ? '{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}\n' : ''),
      command.execute === 'guest-sync-delimited' ? Buffer.of(0xff) : Buffer.alloc(0),
      Buffer.from(`${JSON.stringify(answer)}\n`),
    ]);
    const sent = this.reply(command, bytes);
    if (sent !== null) this.#client?.write(sent);
  }

  #answer({ execute, arguments: args }: AgentCommand): object {
    switch (execute) {
      case 'guest-sync-delimited': return { return: args?.id };
      case 'guest-ping': return { return: {} };
      case 'guest-info': return { return: { version: '0.0', supported_commands: ['freeze', 'thaw', 'status'].map((name) => ({ name: `guest-fsfreeze-${name}`, enabled: true })) } };
      case 'guest-fsfreeze-status': return { return: this.isFrozen ? 'frozen' : 'thawed' };
      case 'guest-fsfreeze-freeze': {
        if (this.isFrozen) return { error: { class: 'CommandNotFound', desc: 'the agent is in frozen state' } };
        this.isFrozen = this.fileSystems > 0;
        return { return: this.fileSystems };
      }
      case 'guest-fsfreeze-thaw': {
        const thawed = this.isFrozen ? this.fileSystems : 0;
        this.isFrozen = false;
        return { return: thawed };
      }
      default: return { error: { class: 'CommandNotFound', desc: `no ${execute}` } };
    }
  }
}
