/**
 * The source's part of a planned failover, cut short at every call that it makes to the outside: by an error that the call reports, or by the end of
 * the process; of a note, before or after it has landed. Whatever happens, the next life of the daemon ends in one of two ways: the guest runs here
 * and the target was never told otherwise, or it is let go of durably, was told so, and never runs here again.
 */
import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { HandoverAnswer } from '../../journal/wire.ts';
import type { Capture, GuestPower } from '../../daemon/capture/capture.ts';
import type { TargetLink, TargetSession } from '../../daemon/stream/session.ts';
import { Handover, type HandoverNote } from '../../daemon/supervisor/handover.ts';

const group = 'ab'.repeat(16);
const id = 'cd'.repeat(8);
const sourceId = 'ef'.repeat(16);
const point = { term: 1, point: 7 };

class Killed extends Error {}

/** A host: what survives its daemon, and the calls at which that is cut short. */
class Host {
  file: HandoverNote | null = null;
  isRunning = true;
  readonly said: HandoverAnswer[] = [];
  relinquished = 0;
  calls: string[] = [];
  #end: { readonly at: number; readonly how: 'error' | 'kill'; readonly hasLanded: boolean } | null = null;

  cutShort(at: number, how: 'error' | 'kill', hasLanded: boolean): void {
    this.#end = { at, how, hasLanded };
  }

  async call(name: string, act: () => void): Promise<void> {
    this.calls.push(name);
    const end = this.#end !== null && this.calls.length - 1 === this.#end.at ? this.#end : null;
    if (end === null || end.hasLanded) act();
    if (end === null) return;
    this.#end = null;
    if (end.how === 'kill') throw new Killed(name);
    throw name === 'note' ? Object.assign(new Error('no space'), { code: 'ENOSPC', syscall: 'write' }) : new Fault('QMP_TIMEOUT', name);
  }

  get power(): GuestPower {
    return {
      keepThroughOff: () => Promise.resolve(null),
      shutDown: async () => { await this.call('shutDown', () => { this.isRunning = false; }); return true; },
      standStill: () => this.call('standStill', () => { this.isRunning = false; }),
      startAgain: () => this.call('startAgain', () => { this.isRunning = true; }),
      images: async () => { await this.call('images', () => undefined); return []; },
      end: () => this.call('end', () => undefined),
      runState: () => Promise.resolve({ status: this.isRunning ? 'running' : 'paused', running: this.isRunning }),
      pause: () => this.call('pause', () => { this.isRunning = false; }),
      goOn: () => this.call('goOn', () => { this.isRunning = true; }),
    };
  }

  /** A life of the daemon. */
  handover(): Handover {
    return new Handover({
      groupId: group, name: 'web', clock: nodeClock, noted: this.file,
      note: (note) => this.call('note', () => { this.file = note; }),
      relinquish: () => this.call('relinquish', () => { this.relinquished += 1; }),
    });
  }

  /** `verdict`: what the target says to `yielded`. */
  session(handover: Handover, verdict: 'takeOver' | 'recall'): TargetSession {
    return {
      closed: Promise.resolve(new Fault('TARGET_UNREACHABLE', 'over')),
      answer: (answer: HandoverAnswer) => {
        this.said.push(answer);
        if (answer.t !== 'yielded') return;
        queueMicrotask(() => handover.ordered(verdict === 'takeOver' ? { t: 'takeOver', group, id, term: 2, sourceId } : { t: 'recall', group, id }));
      },
    } as unknown as TargetSession;
  }
}

async function live(host: Host, verdict: 'takeOver' | 'recall', isOrdered: boolean): Promise<void> {
  const handover = host.handover();
  const session = host.session(handover, verdict);
  await handover.takeUp(host.power);
  if (isOrdered) {
    handover.ordered({ t: 'yield', group, id, shutdownMs: 1000, onLimit: 'give-up' });
    await handover.carryOut(session, host.power, async () => { await host.call('final', () => undefined); return point; }, new AbortController().signal);
  }
  // Before each announcement.
  await handover.takeUp(host.power);
  const capture = { connect: () => Promise.resolve(), power: () => host.power, close: () => Promise.resolve() } as unknown as Capture;
  await handover.stayAway({ session: () => Promise.resolve(session) } as unknown as TargetLink, capture, new AbortController().signal);
}

/** As a supervisor and a service manager do: whatever ends a life, another begins. */
async function untilSettled(host: Host, verdict: 'takeOver' | 'recall'): Promise<void> {
  let isOrdered = true;
  for (let lives = 0; lives < 4; lives++) {
    try {
      await live(host, verdict, isOrdered);
      return;
    } catch (error) {
      if (!(error instanceof Killed || error instanceof Fault || (error as NodeJS.ErrnoException).syscall !== undefined)) throw error;
      isOrdered = false;
    }
  }
  throw new Error('it does not settle');
}

for (const verdict of ['takeOver', 'recall'] as const) {
  void t.test(`cut short anywhere, the target says ${verdict}`, async (t) => {
    const whole = new Host();
    await untilSettled(whole, verdict);
    t.equal(whole.isRunning, verdict === 'recall');
    t.equal(whole.said.at(-1)?.t, verdict === 'recall' ? 'kept' : 'relinquished');
    for (let at = 0; at < whole.calls.length; at++) {
      for (const how of ['error', 'kill'] as const) {
        for (const hasLanded of [false, true]) {
          const what = `${whole.calls[at]!} (${at}) ends by ${how}, ${hasLanded ? 'after' : 'before'} it was done`;
          const host = new Host();
          host.cutShort(at, how, hasLanded);
          await untilSettled(host, verdict);
          const isLetGo = host.file?.state === 'relinquished';
          const wasTold = host.said.some((answer) => answer.t === 'relinquished');
          t.equal(host.isRunning, !isLetGo, `${what}: the guest ${isLetGo ? 'stays down' : 'runs'}`);
          t.equal(wasTold, isLetGo, `${what}: the target ${isLetGo ? 'is told' : 'was never told to go ahead'}`);
          if (isLetGo) t.equal(host.relinquished > 0, true, `${what}: whoever else must know, knows`);
          else t.equal(host.file, null, `${what}: nothing is noted any more`);
        }
      }
    }
  });
}

void t.test('a verdict on another attempt is not listened to', async (t) => {
  const host = new Host();
  const handover = host.handover();
  handover.ordered({ t: 'yield', group, id, shutdownMs: 1000, onLimit: 'give-up' });
  const over = new AbortController();
  const session = {
    answer: (answer: HandoverAnswer) => {
      host.said.push(answer);
      if (answer.t !== 'yielded') return;
      handover.ordered({ t: 'takeOver', group, id: '00'.repeat(8), term: 2, sourceId });
      over.abort(new Fault('TARGET_UNREACHABLE', 'the session is over'));
    },
  } as unknown as TargetSession;
  await t.rejects(handover.carryOut(session, host.power, () => Promise.resolve(point), over.signal), { code: 'TARGET_UNREACHABLE' });
  t.equal(host.isRunning, true);
  t.equal(host.file, null);
});
