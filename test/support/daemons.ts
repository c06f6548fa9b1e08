/**
 * Real source and target processes for the end-to-end tests, as an operator would start them: the built command, config
 * files in a temporary folder, control sockets asked over HTTP. Every process is ended by its own pid when the test ends.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import type { GuestReport } from '../../daemon/report.ts';
import { isFault } from '../../journal/fault.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { waitFor } from './wait.ts';

const command = join(import.meta.dirname, '..', '..', 'dist', 'console', 'main.js');

/** What of tap's test object this needs. */
export interface Teardown { teardown(ending: () => Promise<void> | void): unknown; passing?(): boolean; comment?(...words: unknown[]): void }

export class Daemon<Client> {
  readonly client: Client;
  readonly configPath: string;
  readonly logPath: string;
  readonly #role: 'source' | 'target';
  readonly #isUp: () => Promise<unknown>;
  readonly #prefix: readonly string[];
  /** console/main.js of the release that the next start runs. */
  program = command;
  #child: ChildProcess | null = null;

  constructor(role: 'source' | 'target', folder: string, configPath: string, client: Client, isUp: () => Promise<unknown>, prefix: readonly string[] = []) {
    this.#role = role;
    this.configPath = configPath;
    this.client = client;
    this.logPath = join(folder, `${role}.log`);
    this.#isUp = isUp;
    this.#prefix = prefix;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error(`${this.#role} is not running`);
    return this.#child.pid;
  }

  async start(): Promise<void> {
    const log = await open(this.logPath, 'a');
    const [program, ...args] = [...this.#prefix, process.execPath, this.program, this.#role, 'run', '--config', this.configPath];
    const child = spawn(program!, args, { stdio: ['ignore', log.fd, log.fd] });
    await log.close();
    this.#child = child;
    await waitFor(async () => {
      if (child.exitCode !== null) throw new Error(`${this.#role} ended with ${child.exitCode}: ${await this.log()}`);
      return this.#isUp().then(() => true, (error: unknown) => { if (isFault(error) || (error as { code?: unknown }).code === 'DAEMON_UNREACHABLE') return false; throw error; });
    }, { limitMs: 20_000, what: `${this.#role} to answer` });
  }

  /** SIGKILL, as a host that loses power would. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  /** Of one that was never started: nothing. */
  log(): Promise<string> {
    return readFile(this.logPath, { encoding: 'utf8', flag: 'a+' });
  }
}

export interface Pair {
  readonly folder: string;
  readonly source: Daemon<SourceClient>;
  readonly target: Daemon<TargetClient>;
  readonly link: Link | null;
  guest(name: string): Promise<GuestReport>;
  group(name: string): Promise<GroupStoreReport>;
  /** Waits until a point newer than any that is acknowledged now is acknowledged. */
  newPoint(name: string, limitMs?: number): Promise<GuestReport>;
  protect(name: string, qmpPath: string, rpoMs?: number): Promise<void>;
}

export interface PairOptions { /** `program` of each, where it is another than this build's. */ readonly sourceProgram?: string; readonly targetProgram?: string; readonly spoolBudget?: string; readonly spoolFolder?: string; readonly targetData?: string; readonly isPaired?: boolean; /** More lines for the source's config. */ readonly sourceConfig?: string; /** More keys of the target's `failover`, each after a comma. */ readonly failover?: string; /** More lines for the target's. */ readonly targetConfig?: string; /** The source reaches the target through a link that the test can cut. */ readonly isLinkCuttable?: boolean }

/** A source and a target, running, paired. */
export async function startPair(t: Teardown, options: PairOptions = {}): Promise<Pair> {
  const folder = await mkdtemp(join(tmpdir(), 'af-e2e-'));
  const sourceSocket = join(folder, 's.sock');
  const targetSocket = join(folder, 't.sock');
  await writeFile(join(folder, 'source.yaml'), `role: source
name: alpha
data: ${join(folder, 'source')}
spool:
  folder: ${options.spoolFolder ?? join(folder, 'spool')}
  budget: ${options.spoolBudget ?? '1GiB'}
  keepFree: 1MiB
control: ${sourceSocket}
log: { level: debug }
${options.sourceConfig ?? ''}`);
  await writeFile(join(folder, 'target.yaml'), `role: target
name: bravo
listen: { host: 127.0.0.1, port: 0 }
data: ${options.targetData ?? join(folder, 'target')}
keepFree: 1MiB
control: ${targetSocket}
log: { level: debug }
failover: { accel: tcg, network: none${options.failover ?? ''} }
${options.targetConfig ?? ''}`);
  const sourceClient = await ofRelease('SourceClient', new SourceClient(sourceSocket), sourceSocket, () => source.program, options.sourceProgram);
  const targetClient = await ofRelease('TargetClient', new TargetClient(targetSocket), targetSocket, () => target.program, options.targetProgram);
  const source: Daemon<SourceClient> = new Daemon('source', folder, join(folder, 'source.yaml'), sourceClient, () => sourceClient.report());
  const target: Daemon<TargetClient> = new Daemon('target', folder, join(folder, 'target.yaml'), targetClient, () => targetClient.report());
  source.program = options.sourceProgram ?? source.program;
  target.program = options.targetProgram ?? target.program;
  t.teardown(async () => {
    await source.kill();
    await target.kill();
    await endGuestsOf(folder);
    if (t.passing?.() === false) for (const daemon of [source, target]) t.comment?.((await daemon.log()).split('\n').slice(-30).join('\n'));
    await rm(folder, { recursive: true, force: true });
  });
  await target.start();
  const link = options.isLinkCuttable === true ? await openLink(t) : null;
  // A restarted target must be found where the token said: the port it got is fixed from here on.
  const { address } = await targetClient.report();
  const port = address.slice(address.lastIndexOf(':') + 1);
  const config = await readFile(target.configPath, 'utf8');
  await writeFile(target.configPath, `${config.replace('port: 0', `port: ${port}`)}advertise: 127.0.0.1:${link?.port ?? port}\n`);
  if (link !== null) {
    link.to = Number(port);
    await target.kill('SIGTERM');
    await target.start();
  }
  await source.start();
  if (options.isPaired ?? true) await sourceClient.pair((await targetClient.invite()).token);

  const guest = async (name: string): Promise<GuestReport> => {
    const found = (await sourceClient.report()).guests.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no guest ${name}`);
    return found;
  };
  return {
    folder, source, target, link, guest,
    group: async (name) => {
      const found = (await targetClient.report()).groups.find((one) => one.name === name);
      if (found === undefined) throw new Error(`no group ${name}`);
      return found;
    },
    newPoint: async (name, limitMs = 60_000) => {
      const from = (await guest(name)).newestPoint;
      await waitFor(async () => {
        const { newestPoint } = await guest(name);
        return newestPoint !== null && (from === null || newestPoint.term > from.term || newestPoint.point > from.point);
      }, { limitMs, what: `a new point of ${name} after ${from?.point}` });
      return guest(name);
    },
    protect: async (name, qmpPath, rpoMs = 1000) => {
      await sourceClient.protect({ name, qmpPath, rpoMs });
    },
  };
}

/** Guests that the target started outlive it; nobody else's command line names the pair's folder. */
export async function endGuestsOf(folder: string): Promise<void> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    try {
      if (pid !== process.pid && (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(`${folder}/`)) process.kill(pid, 'SIGKILL');
    } catch (error) {
      // It ended while it was being looked at.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

/** A TCP relay that can be cut: connections are reset at whatever byte they are, new ones refused until it is mended. */
export interface Link { to: number; readonly port: number; cut(): void; mend(): void }

async function openLink(t: Teardown): Promise<Link> {
  const sockets = new Set<Socket>();
  let isCut = false;
  const link = { to: 0, port: 0, cut: () => { isCut = true; for (const socket of sockets) socket.resetAndDestroy(); }, mend: () => { isCut = false; } };
  const server = createServer((near) => {
    if (isCut) return void near.resetAndDestroy();
    const far = connect(link.to, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]] as const) {
      sockets.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => { sockets.delete(one); other.destroy(); });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => { link.cut(); server.close(); });
  link.port = (server.address() as AddressInfo).port;
  return link;
}

/**
 * While the daemon is `program`'s, of another release that has a client of its own beside it, that client; else ours. What 0.1.0 called by another name
 * is found there.
 */
async function ofRelease<Client extends object>(name: 'SourceClient' | 'TargetClient', ours: Client, socketPath: string, running: () => string, program: string | undefined): Promise<Client> {
  if (program === undefined) return ours;
  const module = await import(pathToFileURL(join(dirname(program), 'control-client.js')).href) as Record<string, new (path: string) => Record<string, (...all: unknown[]) => unknown>>;
  const theirs = new module[name]!(socketPath);
  const renamed: Readonly<Record<string, string>> = { invite: 'token' };
  return new Proxy(ours, {
    get(_, member: string) {
      // It is no promise, however often it is asked.
      if (member === 'then') return undefined;
      const [from, key] = running() === program ? [theirs, theirs[member] === undefined ? renamed[member] ?? member : member] : [ours as Record<string, unknown>, member];
      const found = (from as Record<string, unknown>)[key];
      return typeof found === 'function' ? (found as (...all: unknown[]) => unknown).bind(from) : found;
    },
  });
}
