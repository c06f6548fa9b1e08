/**
 * A source for measuring, a process of its own: the product's link, capture and supervisor put together as daemon/source.ts
 * does, with two things that a daemon has no switch for. It can do without TLS, and it cuts when it is told to, because the
 * supervisor's clock stands still between two points. Told what to do over Node's IPC channel by driven-roles.ts.
 */
import { pino } from 'pino';
import { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import { PassTurns } from '../../daemon/resync/pass-turns.ts';
import { CycleTurns } from '../../daemon/stream/cycle-turns.ts';
import { openTargetLink } from '../../daemon/stream/target-link.ts';
import { GuestSupervisor } from '../../daemon/supervisor/guest-supervisor.ts';
import type { Clock } from '../../host/clock.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { isFault } from '../../journal/fault.ts';
import { readToken } from '../../journal/identity.ts';
import type { SourceCommand, SourceEvent, SourceFacts } from './driven-roles.ts';

/** Nothing that the supervisor waits for takes this long, but for its next cut. */
const paceMsMin = 60_000;
const rpoMs = 3_600_000;

let step: () => void = () => undefined;
const steppedClock: Clock = {
  nowMs: () => nodeClock.nowMs(),
  monotonicMs: () => nodeClock.monotonicMs(),
  delay: (ms, signal) => (ms < paceMsMin ? nodeClock.delay(ms, signal) : new Promise((resolve, reject) => {
    step = resolve;
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    tell({ event: 'waiting' });
  })),
};

const facts = JSON.parse(process.argv[2]!) as SourceFacts;
collectSeldom();
const token = readToken(facts.token);
const log = pino({ level: 'warn' });
const link = openTargetLink({
  name: token.targetName, host: token.host, port: token.port, fingerprint: token.fingerprint, secret: token.secret,
  sourceId: nodeRandom.bytes(16).toString('hex'), sourceName: 'alpha', clock: nodeClock, random: nodeRandom, log, tls: facts.isTls,
});
const encoder = new Encoder({ clock: nodeClock });
let protectedGuest: { readonly supervisor: GuestSupervisor; readonly groupId: string } | null = null;

function tell(event: SourceEvent): void {
  process.send?.(event);
}

function protect(name: string, groupId: string): void {
  const capture = new CbtCapture({
    groupId, qmpPath: facts.qmpPath, clock: nodeClock, log, storageDaemonDisks: [{ name: facts.node, node: facts.node }],
    spool: { folder: facts.spoolFolder, budgetBytes: 4 * 1024 ** 3, freeBytesMin: 64 * 1024 ** 2 },
  });
  const supervisor = new GuestSupervisor({
    facts: { name, groupId, qmpPath: facts.qmpPath, target: token.targetName, rpoMs }, capture, link, encoder, passes: new PassTurns(), turns: new CycleTurns(steppedClock), clock: steppedClock, random: nodeRandom, log,
    rateBytesPerSecond: 0, isPaused: false, lastPoint: null, handover: null, noteHandover: () => Promise.resolve(), relinquish: () => Promise.resolve(), onAcknowledged: () => tell({ event: 'acknowledged' }),
  });
  protectedGuest = { supervisor, groupId };
  supervisor.start();
}

async function release(): Promise<void> {
  const session = await link.session(AbortSignal.timeout(15_000));
  await protectedGuest!.supervisor.release();
  // A target keeps what has points: the whole of it goes with the benchmark's folder.
  await session.forget(protectedGuest!.groupId).catch((error: unknown) => { if (!isFault(error) || error.code !== 'FORGET_REFUSED') throw error; });
  protectedGuest = null;
  tell({ event: 'released' });
}

process.on('message', (command: SourceCommand) => {
  switch (command.act) {
    case 'protect': return protect(command.name, command.groupId);
    case 'cut': return step();
    case 'release': return void release();
    default: return command satisfies never;
  }
});
process.on('disconnect', () => process.exit());
await link.session(AbortSignal.timeout(15_000));
tell({ event: 'ready' });
