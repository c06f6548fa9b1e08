/**
 * The daemon's end of a watchdog process: starts it, waits until it holds the agent, gives it words and hears its news. The
 * watchdog is never killed from here: it ends by itself once nothing is frozen, and the end of its input is enough to begin that.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Fault, faultTable, type FaultCode } from '../../journal/fault.ts';
import { judgeDetachment, planDetachment, type DetachmentFacts } from './detachment-plan.ts';
import { guardNews, type GuardNews, type GuardOrder, type GuardWord } from './guard-messages.ts';

/** A Node process starts in well under a second; a loaded host gets time. The agent's own answers come on top. */
const startMsMax = 15_000;

export class Watchdog {
  readonly pid: number | undefined;
  readonly #child: ChildProcess;
  readonly #news: GuardNews[] = [];
  #isOver = false;
  #wake: () => void = () => undefined;
  #heard: (news: GuardNews) => void = () => undefined;
  #over: () => void = () => undefined;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid;
    const over = (): void => {
      if (this.#isOver) return;
      this.#isOver = true;
      this.#wake();
      this.#over();
    };
    // Its input may be gone before ours is: then `next` says so.
    child.stdin!.on('error', () => undefined);
    child.on('error', over);
    const lines = createInterface({ input: child.stdout! });
    lines.on('line', (line) => {
      const news = guardNews.parse(JSON.parse(line));
      this.#news.push(news);
      this.#heard(news);
      this.#wake();
    });
    lines.on('close', over);
    // The daemon may end while the watchdog still has to go on.
    child.unref();
  }

  say(word: GuardWord): void {
    this.#child.stdin!.write(`${JSON.stringify({ word })}\n`);
  }

  /** As if the daemon were gone: what is frozen is thawed. */
  leave(): void {
    this.#child.stdin!.end();
  }

  /** Each news from here on, beside `next`; and that there will be none, however it ended. */
  listen(heard: (news: GuardNews) => void, over: () => void): void {
    this.#heard = heard;
    this.#over = over;
    if (this.#isOver) over();
  }

  /** The next news; null when there will be none, or none came in time. */
  async next(limitMs: number): Promise<GuardNews | null> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#wake();
    }, limitMs);
    while (this.#news.length === 0 && !this.#isOver && !isLate) await new Promise<void>((resolve) => { this.#wake = resolve; });
    clearTimeout(timer);
    return this.#news.shift() ?? null;
  }
}

/** A watchdog that holds the guest's agent and can freeze. `given`: in place of what this host says of itself. Faults: AGENT_*, FREEZE_FOREIGN, FREEZE_UNARMED. */
export async function armWatchdog(order: GuardOrder, given?: Partial<DetachmentFacts>): Promise<Watchdog> {
  const facts = { ...await detachmentFacts(), ...given };
  for (const prefix of planDetachment(facts)) {
    const watchdog = startWatchdog(order, prefix);
    const news = await watchdog.next(startMsMax + 4 * order.answerMs);
    if (news === null) {
      watchdog.leave();
      continue; // it could not be started that way
    }
    if (news.news === 'unfit') throw new Fault(asCode(news.code), news.message, { socketPath: order.socketPath });
    const why = news.news === 'ready' ? judgeDetachment(facts, news.controlGroup) : `it said ${news.news} before it was asked`;
    if (why === null) return watchdog;
    watchdog.leave();
    throw new Fault('FREEZE_UNARMED', `the watchdog cannot be armed: ${why}`, { controlGroup: facts.controlGroup });
  }
  throw new Fault('FREEZE_UNARMED', 'the watchdog cannot be armed: its process could not be started', {});
}

/** A watchdog that thaws what an earlier one left frozen, and goes on if this daemon ends. Faults: FREEZE_UNARMED. */
export async function startThaw(order: GuardOrder): Promise<Watchdog> {
  for (const prefix of planDetachment(await detachmentFacts())) {
    const watchdog = startWatchdog({ ...order, task: 'thaw' }, prefix);
    if (await watchdog.next(startMsMax) !== null) return watchdog;
    watchdog.leave();
  }
  throw new Fault('FREEZE_UNARMED', 'the process that would thaw the guest could not be started', {});
}

function startWatchdog(order: GuardOrder, prefix: readonly string[]): Watchdog {
  const own = fileURLToPath(import.meta.url);
  const program = fileURLToPath(new URL(`watchdog${extname(own)}`, import.meta.url));
  // The same Node with the same flags: where the sources run without a build, so does the watchdog.
  const [command, ...args] = [...prefix, process.execPath, ...process.execArgv, program, JSON.stringify(order)];
  return new Watchdog(spawn(command!, args, { detached: true, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] }));
}

async function detachmentFacts(): Promise<DetachmentFacts> {
  return {
    hasSystemd: existsSync('/run/systemd/system'),
    isRoot: process.geteuid?.() === 0,
    controlGroup: await readFile('/proc/self/cgroup', 'utf8').catch(() => ''),
    isDaemonKilledAlone: process.env['AFTERIMAGE_KILL_MODE'] === 'process',
  };
}

export function asCode(code: string): FaultCode {
  return Object.hasOwn(faultTable, code) ? code as FaultCode : 'INTERNAL';
}
