/** A source in the simulation: the real supervisor, handover, link and session over a model guest. What it notes survives its process as files do that were replaced whole. */
import { pino } from 'pino';
import { Encoder } from '../../daemon/stream/encoder.ts';
import { shakeHands } from '../../daemon/stream/connect-target.ts';
import { openTargetLink } from '../../daemon/stream/target-link.ts';
import { WireSession } from '../../daemon/stream/wire-session.ts';
import type { TargetLink } from '../../daemon/stream/session.ts';
import { CycleTurns } from '../../daemon/stream/cycle-turns.ts';
import { PassTurns } from '../../daemon/resync/pass-turns.ts';
import { GuestSupervisor } from '../../daemon/supervisor/guest-supervisor.ts';
import type { HandoverNote } from '../../daemon/supervisor/handover.ts';
import type { LastPoint } from '../../daemon/supervisor/supervisor-options.ts';
import { LeaseGuard } from '../../daemon/lease/lease-guard.ts';
import { LeaseKeeper } from '../../host/lease-keeper.ts';
import type { Witness } from '../../host/witness.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import { ModelCapture, type ModelQemu, type Truth } from './model-qemu.ts';
import type { ModelTarget } from './model-target.ts';
import type { Network } from './network.ts';
import { Life, type World } from './world.ts';

export const leaseTtlMs = 6000;
export const groupId = '00112233445566778899aabbccddeeff';
const sourceId = 'ffeeddccbbaa99887766554433221100';

export interface ModelSourceOptions {
  readonly world: World;
  readonly network: Network;
  readonly target: ModelTarget;
  readonly secret: Buffer;
  readonly fingerprint: string;
  readonly truth: Truth;
  readonly onAcknowledged: (point: LastPoint) => void;
  /** Planted: what changed is forgotten when it was cut, and not when it was acknowledged. */
  readonly isTrimmedEarly: boolean;
  /** Planted: a note is said to be durable a moment before it is. */
  readonly isNotedLate: boolean;
  readonly torn?: (qemu: ModelQemu) => void;
  /** Null: there is none. */
  readonly witness: ((life: Life) => Witness) | null;
  /** Planted: a new process takes its start for a renewal. */
  readonly isLeaseForgotten: boolean;
}

export class ModelSource {
  readonly #o: ModelSourceOptions;
  qemu: ModelQemu | null = null;
  life: Life | null = null;
  supervisor: GuestSupervisor | null = null;
  /** Durable. */
  noted: HandoverNote | null = null;
  #lastPoint: LastPoint | null = null;
  #term = 1;
  leases: LeaseKeeper | null = null;
  /** As files: whether the guest waits for its lease, and until when that was held. */
  stoppedFor = false;
  #heldUntilMs: number | null = null;

  constructor(options: ModelSourceOptions) {
    this.#o = options;
  }

  start(): void {
    const { world, truth, torn } = this.#o;
    const life = this.life = new Life(world);
    const log = pino({ level: 'silent' });
    const capture = new ModelCapture({ world, life, qemu: () => this.qemu, truth, isTrimmedEarly: this.#o.isTrimmedEarly, ...(torn === undefined ? {} : { torn }) });
    const leases = this.leases = this.#makeLeases(life);
    const supervisor: GuestSupervisor = this.supervisor = new GuestSupervisor({
      facts: { name: 'web', groupId, qmpPath: '/qmp', target: 'bravo', rpoMs: 1000 },
      capture,
      checkStart: () => leases?.checkStart(groupId),
      link: this.#link(life), encoder: new Encoder({ clock: life, hostIdle: () => 0 }), passes: new PassTurns(), turns: new CycleTurns(life), clock: life, random: world.random, log,
      rateBytesPerSecond: 0, isPaused: false, lastPoint: this.#lastPoint,
      onAcknowledged: (point) => {
        if (life.isOver) return;
        world.count('points acknowledged');
        world.log(`acknowledged ${formatPoint(point)} (${point.kind ?? 'crash'})`);
        this.#lastPoint = point;
        this.#o.onAcknowledged(point);
      },
      handover: this.noted,
      term: this.#term,
      noteTerm: (term) => life.act(() => { this.#term = term; }),
      noteHandover: async (note) => {
        const landed = life.delay(this.#o.isNotedLate ? 50 : 0).then(() => life.act(() => {
          this.noted = note;
          world.log(`the source notes ${note === null ? 'nothing under way' : note.state}`);
        }));
        if (!this.#o.isNotedLate) await landed;
      },
      relinquish: () => Promise.resolve(),
    });
    // Nothing is done to the guest before it is known what its lease was.
    void this.#lease(leases, life, capture).then(() => supervisor.start());
  }

  #makeLeases(life: Life): LeaseKeeper | null {
    const { witness, world } = this.#o;
    if (witness === null) return null;
    const keeper = new LeaseKeeper({ witness: witness(life), holder: sourceId, by: 'alpha', ttlMs: leaseTtlMs, clock: life, log: { warn: (_, text) => world.log(text), info: (_, text) => world.log(text) } });
    keeper.start();
    return keeper;
  }

  async #lease(keeper: LeaseKeeper | null, life: Life, capture: ModelCapture): Promise<void> {
    const { world } = this.#o;
    const guard = new LeaseGuard({
      group: 'web', qmpPath: '/qmp', power: () => capture.power(),
      withOwn: async (act) => {
        const own = new ModelCapture({ world, life, qemu: () => this.qemu, truth: this.#o.truth });
        await own.connect();
        return act(own.power());
      },
      notes: {
        put: () => life.act(() => { this.stoppedFor = true; }),
        of: () => life.act(() => (this.stoppedFor ? [{ name: 'web', qmpPath: '/qmp' }] : [])),
        remove: () => life.act(() => { this.stoppedFor = false; }),
      },
      held: {
        read: () => life.act(() => (this.#o.isLeaseForgotten ? null : this.#heldUntilMs)), put: (_, untilMs) => life.act(() => { this.#heldUntilMs = untilMs; }), remove: () => Promise.resolve(),
      },
    });
    await keeper?.add({ groupId, name: 'web', term: () => (this.noted?.state === 'relinquished' ? null : this.#term), guard });
  }

  kill(): void {
    this.#o.world.log('source killed');
    this.life?.end();
    this.supervisor = this.leases = null;
  }

  #link(life: Life): TargetLink {
    const { world, network, target, secret, fingerprint } = this.#o;
    return openTargetLink({
      name: 'bravo', host: 'bravo', port: 1, fingerprint, secret, sourceId, sourceName: 'alpha', clock: life, random: world.random, log: pino({ level: 'silent' }),
      connect: async (address, deps, signal) => {
        await life.delay(5 + world.dice.integer(50), signal);
        if (!network.isUp || !target.isUp) throw new Fault('TARGET_UNREACHABLE', 'nobody is there');
        const [here, there] = network.connect(life, target.life!);
        target.accept(there);
        const over = new AbortController();
        const stop = (): void => over.abort(signal.reason);
        signal.addEventListener('abort', stop, { once: true });
        void life.delay(15_000, over.signal).then(() => over.abort(new Fault('WIRE_SILENT', 'no session in time')), () => undefined);
        try {
          const shaken = await shakeHands(here.ws, address, deps, over.signal);
          return new WireSession({ ws: here.ws, socket: here.socket, ...shaken, clock: deps.clock, limits: deps.limits });
        } catch (error) {
          here.terminate();
          throw error;
        } finally {
          signal.removeEventListener('abort', stop);
          over.abort(new Error('answered'));
        }
      },
    });
  }
}
