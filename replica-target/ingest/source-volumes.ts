/**
 * How much each source may bring in a time, counted over a window that moves on in steps by the monotonic clock. Past the limit nothing more is taken of that source, whatever the group,
 * until enough of the window has passed: so that a stolen key fills no disk, and presses nothing out of the past of others. Refusing changes nothing that is stored.
 *
 * A source is counted by its id, in all its connections. The limit of a name is that of whoever first bore the name here or bears it now, whichever is less, so that another name frees nobody.
 * Counts are in memory: a target that starts anew counts anew.
 */
import type { Alarm } from '../../journal/alarm.ts';
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';

export interface VolumeLimit { readonly bytes: number; readonly perMs: number }

/** `sources`: by name or id. `all`: of every source that is not named; null: no limit. */
export interface VolumeLimits { readonly all: VolumeLimit | null; readonly sources: Readonly<Record<string, VolumeLimit>> }

/** The window moves on in so many steps. */
const steps = 48;
/** Source ids that are counted; one more forgets the oldest that is not past its limit. */
const sourcesMax = 10_000;

export class SourceVolume {
  readonly sourceId: string;
  readonly #clock: Clock;
  readonly #onExceeded: (name: string, message: string) => void;
  name: string;
  limit: VolumeLimit | null;
  /** Bytes by step of the window, oldest first. */
  #taken: { readonly step: number; bytes: number }[] = [];
  #sinceMs: number | null = null;

  constructor(sourceId: string, name: string, limit: VolumeLimit | null, clock: Clock, onExceeded: (name: string, message: string) => void) {
    this.sourceId = sourceId;
    this.name = name;
    this.limit = limit;
    this.#clock = clock;
    this.#onExceeded = onExceeded;
  }

  /** Counts bytes that are about to be taken. Fault VOLUME_EXCEEDED: they are not to be, and are not counted. */
  take(bytes: number): void {
    if (this.limit === null) return;
    const stepMs = this.limit.perMs / steps;
    const step = Math.floor(this.#clock.monotonicMs() / stepMs);
    this.#taken = this.#taken.filter((one) => step - one.step < steps);
    // Once past it nothing goes in between, however small: a delta of which records are missing is none.
    if (this.isExceeded() || this.#sum() + bytes > this.limit.bytes) {
      const message = this.#message();
      if (this.#sinceMs === null) {
        this.#sinceMs = this.#clock.nowMs();
        this.#onExceeded(this.name, message);
      }
      throw new Fault('VOLUME_EXCEEDED', message, { source: this.name, sourceId: this.sourceId, limitBytes: this.limit.bytes });
    }
    const last = this.#taken.at(-1);
    if (last?.step === step) last.bytes += bytes;
    else this.#taken.push({ step, bytes });
  }

  /** Still: until a tenth of the limit is free again, so that it does not go on record by record. */
  isExceeded(): boolean {
    if (this.#sinceMs === null || this.limit === null) return false;
    const step = Math.floor(this.#clock.monotonicMs() / (this.limit.perMs / steps));
    this.#taken = this.#taken.filter((one) => step - one.step < steps);
    if (this.#sum() <= this.limit.bytes * 0.9) this.#sinceMs = null;
    return this.#sinceMs !== null;
  }

  alarm(): Alarm | null {
    return this.isExceeded() ? { code: 'VOLUME_EXCEEDED', group: null, message: this.#message(), sinceMs: this.#sinceMs! } : null;
  }

  #sum(): number {
    return this.#taken.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  #message(): string {
    return `source ${this.name} has brought ${this.#sum()} bytes, and may bring ${this.limit?.bytes ?? 0} in ${(this.limit?.perMs ?? 0) / 3_600_000} hours: nothing more is taken of it for now`;
  }
}

export class SourceVolumes {
  readonly #limits: VolumeLimits;
  readonly #clock: Clock;
  readonly #onExceeded: (sourceId: string, name: string, message: string) => void;
  readonly #known = new Map<string, SourceVolume>();

  constructor(limits: VolumeLimits, clock: Clock, onExceeded: (sourceId: string, name: string, message: string) => void = () => undefined) {
    this.#limits = limits;
    this.#clock = clock;
    this.#onExceeded = onExceeded;
  }

  of(sourceId: string, name: string): SourceVolume {
    const known = this.#known.get(sourceId);
    const limit = this.#limitOf(sourceId, name);
    if (known !== undefined) {
      known.name = name;
      known.limit = least(known.limit, limit);
      return known;
    }
    if (this.#known.size >= sourcesMax) for (const [id, one] of this.#known) if (!one.isExceeded()) { this.#known.delete(id); break; }
    const made = new SourceVolume(sourceId, name, limit, this.#clock, (named, message) => this.#onExceeded(sourceId, named, message));
    this.#known.set(sourceId, made);
    return made;
  }

  alarms(): readonly Alarm[] {
    return [...this.#known.values()].flatMap((one) => { const alarm = one.alarm(); return alarm === null ? [] : [alarm]; });
  }

  #limitOf(sourceId: string, name: string): VolumeLimit | null {
    for (const key of [sourceId, name]) if (Object.hasOwn(this.#limits.sources, key)) return this.#limits.sources[key]!;
    return this.#limits.all;
  }
}

function least(a: VolumeLimit | null, b: VolumeLimit | null): VolumeLimit | null {
  if (a === null || b === null) return a ?? b;
  return a.bytes / a.perMs <= b.bytes / b.perMs ? a : b;
}
