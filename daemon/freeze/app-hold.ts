/**
 * Holds a guest's file systems still around a cut: arms the watchdog, has it freeze, and has it thaw the moment the cut's instant
 * has passed. The point is `app` only if the guest was frozen before the instant and the agent then thawed all that it had frozen;
 * else it is `crash`, and `outcome` says why. It never fails a cut, and never waits long for a guest that will not thaw: the
 * watchdog goes on with that alone.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointKind } from '../../journal/point.ts';
import type { FreezeFacts } from '../../journal/seal.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import { answerMsDefault } from '../../qemu/guest-agent.ts';
import type { CutHold } from '../capture/capture.ts';
import { armWatchdog, asCode, type Watchdog } from './arm-watchdog.ts';
import type { FrozenNotes } from './frozen-notes.ts';
import type { GuardNews } from './guard-messages.ts';
import { thawNoted } from './thaw-leftovers.ts';

export interface AppHoldOptions {
  readonly guest: string;
  /** From the config; null: asked of the guest's QEMU. */
  readonly agentPath: string | null;
  readonly findChannel: () => Promise<AgentChannel>;
  readonly limitMs: number;
  readonly notes: FrozenNotes;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface AppOutcome extends FreezeFacts {
  /** Null: the guest was frozen at the cut. */
  readonly fault: Fault | null;
}

/** A hold whose outcome the point's seal tells. */
export interface AppCutHold extends CutHold {
  readonly isUsed: boolean;
  readonly outcome: AppOutcome;
}

export class AppHold implements AppCutHold {
  readonly #o: AppHoldOptions;
  #watchdog: Watchdog | null = null;
  #fault: Fault | null = new Fault('FREEZE_LATE', 'no freeze was tried: the delta went in rounds');
  #frozen: Extract<GuardNews, { news: 'frozen' }> | null = null;
  #thawed: Extract<GuardNews, { news: 'thawed' }> | null = null;
  #released: Promise<PointKind> | null = null;

  constructor(options: AppHoldOptions) {
    this.#o = options;
  }

  /** Whether a freeze was tried at all: not when the delta went in rounds from the first. */
  get isUsed(): boolean {
    return this.#released !== null;
  }

  get outcome(): AppOutcome {
    const rounded = (ms: number): number => Math.max(1, Math.round(ms));
    return {
      fault: this.#fault,
      ...(this.#thawed === null ? {} : { frozenMs: rounded(this.#thawed.frozenMs), thawMs: rounded(this.#thawed.thawMs) }),
      ...(this.#frozen === null ? {} : { freezeMs: rounded(this.#frozen.freezeMs) }),
      ...(this.#fault === null ? {} : { notApp: this.#fault.code }),
    };
  }

  async begin(): Promise<void> {
    try {
      await this.#freeze();
      this.#fault = null;
    } catch (error) {
      this.#fault = asFault(error);
    }
  }

  release(isCut: boolean): Promise<PointKind> {
    this.#released ??= this.#release(isCut);
    return this.#released;
  }

  async #freeze(): Promise<void> {
    const { guest, limitMs, notes, clock } = this.#o;
    const socketPath = await this.#findSocket();
    const order = { socketPath, notePath: notes.path(guest), limitMs, answerMs: answerMsDefault, task: 'guard' } as const;
    if (await notes.has(guest)) {
      throw new Fault('FREEZE_PENDING', `an earlier freeze of ${guest} was not seen to end: it is being thawed`, { guest });
    }
    const watchdog = await armWatchdog(order);
    try {
      await notes.put({ guest, socketPath, sinceMs: clock.nowMs() });
    } catch (error) {
      watchdog.leave();
      throw error;
    }
    this.#watchdog = watchdog;
    watchdog.listen((news) => this.#log(news), () => void this.#succeed(socketPath));
    watchdog.say('freeze');
    // The watchdog itself keeps the limit; what is added is for its news to come.
    const news = await watchdog.next(limitMs + answerMsDefault);
    switch (news?.news) {
      case 'frozen':
        this.#frozen = news;
        return;
      case 'failed': throw new Fault(asCode(news.code), news.message, { guest, socketPath });
      default: throw new Fault('FREEZE_LATE', `the watchdog of ${guest} ${news === null ? 'said nothing' : `said ${news.news}`} when it was to freeze`, { guest, socketPath });
    }
  }

  async #findSocket(): Promise<string> {
    const { agentPath, findChannel, guest } = this.#o;
    if (agentPath !== null) return agentPath;
    const channel = await findChannel();
    switch (channel.kind) {
      case 'free': return channel.path;
      case 'taken': throw new Fault('AGENT_TAKEN', `another program is connected to the agent of ${guest} at ${channel.path}`, { guest, path: channel.path });
      case 'none': throw new Fault('AGENT_NONE', `${guest} has no agent that can be reached: ${channel.why}`, { guest });
      default: return channel satisfies never;
    }
  }

  async #release(isCut: boolean): Promise<PointKind> {
    const watchdog = this.#watchdog;
    if (watchdog === null) return 'crash';
    watchdog.say('thaw');
    // A guest that has not frozen is seen to by the watchdog; nothing here waits for that.
    if (this.#frozen === null) {
      watchdog.leave();
      return 'crash';
    }
    const news = await watchdog.next(2 * answerMsDefault);
    watchdog.leave();
    if (news?.news === 'thawed') this.#thawed = news;
    this.#fault = this.#judge(isCut, news);
    return this.#fault === null ? 'app' : 'crash';
  }

  #judge(isCut: boolean, news: GuardNews | null): Fault | null {
    const { guest, limitMs } = this.#o;
    if (news === null) return new Fault('FREEZE_LATE', `the watchdog of ${guest} ended, or the thaw was not answered in time; it is tried on`, { guest });
    if (news.news !== 'thawed') return new Fault('AGENT_SILENT', `the agent of ${guest} has not answered the thaw yet; it is tried on`, { guest });
    if (news.cause !== 'word') return new Fault('FREEZE_LATE', `${guest} was frozen for ${limitMs} ms without a cut, and thawed by the watchdog`, { guest, limitMs });
    if (!isCut) return new Fault('FREEZE_LATE', `${guest} was frozen, and no cut was made`, { guest });
    if (news.fileSystems >= this.#frozen!.fileSystems) return null;
    return new Fault('FREEZE_LATE', `${guest} had frozen ${this.#frozen!.fileSystems} file systems, and only ${news.fileSystems} were still frozen after the cut`, { guest });
  }

  /** The watchdog has ended. If it died instead, another takes over at once. */
  async #succeed(socketPath: string): Promise<void> {
    const { guest, notes, clock, log } = this.#o;
    try {
      if (await notes.has(guest)) await thawNoted(notes, { guest, socketPath, sinceMs: clock.nowMs() }, log);
    } catch (error) {
      log.error({ guest, err: error }, 'whether the guest is frozen could not be looked up');
    }
  }

  #log(news: GuardNews): void {
    const { log, guest } = this.#o;
    switch (news.news) {
      case 'stuck': log.error({ guest }, `a thaw was not answered, and is tried on: ${news.message}`); break;
      case 'thawed':
        if (news.cause === 'word') log.debug({ guest, frozenMs: news.frozenMs }, 'the guest goes on');
        else log.warn({ guest, frozenMs: news.frozenMs, cause: news.cause }, 'the watchdog thawed the guest by itself');
        break;
      case 'failed': case 'frozen': case 'ready': case 'unfit': break;
      default: news satisfies never;
    }
  }
}

/** What the system refuses (a note that cannot be written) is a reason not to freeze, like the agent's own. A bug stays one. */
function asFault(error: unknown): Fault {
  if (isFault(error)) return error;
  if (error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string') return new Fault('FREEZE_UNARMED', `the system refused: ${error.message}`, {}, error);
  throw error;
}
