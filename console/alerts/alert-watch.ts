/**
 * Looks at a role's report at a steady pace, decides what is to be told (alert-rules-plan.ts, alert-state-plan.ts) and hands it to
 * the ways out. What was told, and what still waits to be delivered, is kept in one private file, written before anything is sent:
 * a restart tells nothing twice and loses nothing; an end in the middle of a delivery repeats it under the same ids of its notices.
 */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { SourceReport } from '../../daemon/report.ts';
import type { Clock } from '../../host/clock.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import type { Random } from '../../host/random.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import type { AlertChannel } from './alert-channel.ts';
import { adviceFor, alertTable } from './alert-codes.ts';
import type { AlertOptions, AlertOrigin, AlertTestResult, Notice } from './alert-options.ts';
import { findConditions } from './alert-rules-plan.ts';
import { isQuietAt, keptAlert, planAlerts, type KeptAlert, type Telling } from './alert-state-plan.ts';
import { commandChannel } from './command-channel.ts';
import { bulletinOf, Delivery } from './delivery.ts';
import { emailChannel } from './email-channel.ts';
import { Heartbeat } from './heartbeat.ts';
import { keptNotice } from './outbox-plan.ts';
import { webhookChannel } from './webhook-channel.ts';

const lookMsDefault = 5_000;
const testMsMax = 60_000;
const state = z.object({ version: z.literal(1), alerts: z.array(keptAlert), waiting: z.record(z.string(), z.array(keptNotice)) });

export interface AlertWatchParts {
  readonly options: AlertOptions;
  readonly from: AlertOrigin;
  readonly report: () => SourceReport | TargetReport;
  /** Absolute; made 0600. */
  readonly statePath: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** In place of the usual pace, ms. */
  readonly lookMs?: number;
}

export class AlertWatch {
  readonly #o: AlertWatchParts;
  readonly #deliveries: readonly Delivery[];
  readonly #heartbeat: Heartbeat | null;
  readonly #stop = new AbortController();
  #kept: readonly KeptAlert[];
  #running: Promise<void> = Promise.resolve();
  /** One write at a time, and none that is not the newest. Never rejects. */
  #saving: Promise<void> = Promise.resolve();
  #savedText = '';
  #hasFailedToSave = false;

  private constructor(parts: AlertWatchParts, known: z.infer<typeof state> | null) {
    this.#o = parts;
    const { options, from, clock, random, log } = parts;
    this.#kept = known?.alerts ?? [];
    this.#deliveries = channelsOf(options).map((channel) => new Delivery({ channel, from, clock, random, log, onChange: () => void this.#save() }, known?.waiting[channel.name] ?? []));
    this.#heartbeat = options.heartbeat === null ? null : new Heartbeat(options.heartbeat, { clock, log, isAlive: () => parts.report().atMs > 0 });
    this.#running = this.#run();
  }

  static async open(parts: AlertWatchParts): Promise<AlertWatch> {
    let known: z.infer<typeof state> | null = null;
    try {
      known = await readJson(parts.statePath, state);
    } catch (error) {
      if (!isFault(error)) throw error;
      // To be told of something a second time is better than not at all.
      parts.log.error({ err: error }, 'what was told of alerts could not be read, and is begun anew');
    }
    return new AlertWatch(parts, known);
  }

  /** A notice of a test on each way out, past all queues and quiet hours; the heartbeat as well. */
  async test(): Promise<AlertTestResult[]> {
    const { clock, random, from } = this.#o;
    const nowMs = clock.nowMs();
    const notice: Notice = {
      id: random.bytes(8).toString('hex'), event: 'test', code: 'TEST', group: null, severity: 'warning', message: `a test of the alerts of ${from.role} ${from.name}: nothing has happened`,
      advice: alertTable.TEST.operatorCan, sinceMs: nowMs, atMs: nowMs,
    };
    const ways = this.#deliveries.map(({ channel }) => ({ name: channel.name, act: () => channel.send(bulletinOf(this.#o, [notice]), AbortSignal.any([this.#stop.signal, AbortSignal.timeout(testMsMax)])) }));
    const heartbeat = this.#heartbeat;
    if (heartbeat !== null) ways.push({ name: heartbeat.name, act: () => heartbeat.beat() });
    return Promise.all(ways.map(async ({ name, act }): Promise<AlertTestResult> => {
      const fromMs = clock.monotonicMs();
      const tookMs = (): number => Math.round(clock.monotonicMs() - fromMs);
      try {
        return { channel: name, isDelivered: true, answer: await act(), tookMs: tookMs() };
      } catch (error) {
        if (!isFault(error)) throw error;
        return { channel: name, isDelivered: false, answer: `${error.code}: ${error.message}`, tookMs: tookMs() };
      }
    }));
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('nothing is watched any more'));
    await this.#running;
    await Promise.all([...this.#deliveries.map((delivery) => delivery.close()), this.#heartbeat?.close()]);
    await this.#saving;
  }

  async #run(): Promise<void> {
    const { clock, lookMs = lookMsDefault } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#look();
      await clock.delay(lookMs, signal).catch((error: unknown) => { if (!signal.aborted) throw error; });
    }
  }

  async #look(): Promise<void> {
    const { options, report, clock, log } = this.#o;
    const nowMs = clock.nowMs();
    const { kept, tell } = planAlerts(this.#kept, findConditions(report(), options.thresholds), {
      nowMs, settleMs: options.settleMs, repeatEveryMs: options.repeatEveryMs, isQuiet: (severity) => isQuietAt(options.quietHours, new Date(nowMs), severity),
    });
    this.#kept = kept;
    const notices = tell.map((telling) => this.#notice(telling, nowMs));
    for (const { event, code, group, message, severity } of notices) log[event === 'recovered' ? 'info' : severity === 'error' ? 'error' : 'warn']({ alert: code, event, ...(group === null ? {} : { group }) }, message);
    for (const delivery of this.#deliveries) delivery.add(notices);
    await this.#save();
    for (const delivery of this.#deliveries) delivery.start();
  }

  #notice({ event, alert: { code, group, severity, message, sinceMs } }: Telling, nowMs: number): Notice {
    return { id: this.#o.random.bytes(8).toString('hex'), event, code, group, severity, message, advice: adviceFor(code), sinceMs, atMs: nowMs };
  }

  /** When it cannot be written, alerts go out nonetheless: a disk that is full is one of them. */
  #save(): Promise<void> {
    const saved = this.#saving.then(async () => {
      const value: z.infer<typeof state> = { version: 1, alerts: [...this.#kept], waiting: Object.fromEntries(this.#deliveries.map(({ channel, waiting }) => [channel.name, [...waiting]])) };
      const text = essence(value);
      if (text === this.#savedText) return;
      try {
        await replaceJson(this.#o.statePath, value);
        this.#savedText = text;
        this.#hasFailedToSave = false;
      } catch (error) {
        if (!(error instanceof Error && 'code' in error)) throw error;
        if (!this.#hasFailedToSave) this.#o.log.error({ err: error }, 'what was told of alerts could not be noted: after a restart it may be told again');
        this.#hasFailedToSave = true;
      }
    });
    this.#saving = saved;
    return saved;
  }
}

/** Ages in messages change with every look; the file need not. */
function essence({ alerts, waiting }: z.infer<typeof state>): string {
  return JSON.stringify([alerts.map(({ message: _, ...rest }) => rest), Object.entries(waiting).map(([name, notices]) => [name, notices.map(({ id }) => id)])]);
}

function channelsOf({ webhooks, email, command }: AlertOptions): AlertChannel[] {
  const channels = [...webhooks.map(webhookChannel), ...(email === null ? [] : [emailChannel(email)]), ...(command === null ? [] : [commandChannel(command)])];
  if (new Set(channels.map(({ name }) => name)).size !== channels.length) throw new Fault('INTERNAL', 'two ways out of alerts have one name');
  return channels;
}
