/** What a guest's supervisor needs, and what it tells; the supervisor itself is guest-supervisor.ts. */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import type { PointId, PointKind } from '../../journal/point.ts';
import type { GuestImage } from '../../qemu/guest-images.ts';
import type { Capture } from '../capture/capture.ts';
import type { AppCutHold } from '../freeze/app-hold.ts';
import type { PassTurns } from '../resync/pass-turns.ts';
import type { Encoder } from '../stream/encoder.ts';
import type { CycleTurns } from '../stream/cycle-turns.ts';
import type { TargetLink } from '../stream/session.ts';
import type { GuestFacts } from './guest-status.ts';
import type { HandoverNote } from './handover.ts';

export interface LastPoint extends PointId {
  readonly cutAtMs: number;
  readonly kind?: PointKind | undefined;
  /** Of the last application-consistent point, if any. */
  readonly appAtMs?: number | undefined;
}

export interface SupervisorOptions {
  readonly facts: GuestFacts;
  readonly capture: Capture;
  readonly link: TargetLink;
  readonly encoder: Encoder;
  /** Of the link: its guests' full passes take turns. */
  readonly passes: PassTurns;
  /** Of the link: its guests' cycles take turns. */
  readonly turns: CycleTurns;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Rate limit of full passes, bytes per second; 0: none. */
  readonly rateBytesPerSecond: number;
  /** Holds the first full pass until `pause(false)`. */
  readonly isPaused: boolean;
  /** What an earlier life of the daemon knew to be acknowledged. */
  readonly lastPoint: LastPoint | null;
  /** Called with each acknowledged point, so that a restarted daemon knows how far behind it is. */
  readonly onAcknowledged: (point: LastPoint) => void;
  /** What an earlier life of the daemon was in the middle of, or ended with; and how that is noted. */
  readonly handover: HandoverNote | null;
  readonly noteHandover: (note: HandoverNote | null) => Promise<void>;
  /** The group's term, each time that the target says it. */
  readonly noteTerm?: (term: number) => Promise<void>;
  /** Throws when a guest that stands still may not be started again now. */
  readonly checkStart?: () => void;
  /** Which files the guest's disks are, whenever it was connected to: needed when its host comes back without it. */
  readonly noteImages?: (images: readonly GuestImage[]) => Promise<void>;
  /** See `HandoverOptions.relinquish`. */
  readonly relinquish: (term: number, sourceId: string) => Promise<void>;
  /** The group's term, as far as an earlier life knew it. */
  readonly term?: number;
  /** Application-consistent points: how often by themselves (null: only when asked for), and what holds the guest still for one. */
  readonly app?: { readonly everyMs: number | null; hold(): AppCutHold };
}
