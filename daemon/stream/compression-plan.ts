/**
 * Whether records are compressed, decided from measurement as it runs. Pure: a state and a sample in, the next state out.
 *
 * Compression costs processor time on the source and on the target, and pays only while the link is what holds the stream
 * up. So it is off; when senders mostly wait for the link it is tried for one sample, and kept only while more of the
 * guest's bytes go through a second with it than without.
 */

/** Over a stretch in which something was being sent. */
export interface SendingSample {
  readonly nowMs: number;
  /** Time with a delta or a pass under way, ms. */
  readonly activeMs: number;
  /** Part of it in which the sender waited for credit or socket, ms. */
  readonly waitedMs: number;
  /** The guest's bytes that went out, before compression. */
  readonly rawBytes: number;
  /** Payload bytes that went out. */
  readonly payloadBytes: number;
  /** Processor time of this process over the same stretch, ms. */
  readonly cpuMs: number;
}

export interface CompressionState {
  readonly mode: 'off' | 'trial' | 'on' | 'check';
  /** Bytes a second of the other choice, when it was last measured. */
  readonly otherRate: number;
  readonly decidedAtMs: number;
  /** Raw over payload bytes, of the last sample with compression. */
  readonly ratio: number;
  readonly why: string;
}

/** Shortest stretch that is judged, ms of sending. */
export const sampleMs = 500;
/** Pause between trials, ms. */
const trialEveryMs = 30_000;
/** The sender is held up by the link when it waits for more than this share of its time, with processor to spare. */
const waitShareMin = 0.5;
const cpuShareMax = 0.8;
/** What compression must gain to be kept. */
const gainMin = 1.1;

export const initialCompression: CompressionState = { mode: 'off', otherRate: 0, decidedAtMs: -trialEveryMs, ratio: 1, why: 'the link has not been the bottleneck' };

export function isCompressing(state: CompressionState): boolean {
  return state.mode === 'trial' || state.mode === 'on';
}

export function planCompression(state: CompressionState, sample: SendingSample): CompressionState {
  const rate = sample.rawBytes / sample.activeMs * 1000;
  const ratio = isCompressing(state) && sample.payloadBytes > 0 ? sample.rawBytes / sample.payloadBytes : state.ratio;
  const mayTry = sample.nowMs - state.decidedAtMs >= trialEveryMs;
  switch (state.mode) {
    case 'off': {
      const isHeldUp = sample.waitedMs > waitShareMin * sample.activeMs && sample.cpuMs < cpuShareMax * sample.activeMs;
      return isHeldUp && mayTry ? { mode: 'trial', otherRate: rate, decidedAtMs: sample.nowMs, ratio, why: 'the link holds the stream up: trying' } : state;
    }
    case 'trial':
      return rate >= gainMin * state.otherRate
        ? { mode: 'on', otherRate: state.otherRate, decidedAtMs: sample.nowMs, ratio, why: `${percent(rate, state.otherRate)} of the guest's bytes a second against without` }
        : { mode: 'off', otherRate: rate, decidedAtMs: sample.nowMs, ratio, why: `tried: only ${percent(rate, state.otherRate)} of the bytes a second without` };
    case 'on':
      return mayTry ? { mode: 'check', otherRate: rate, decidedAtMs: sample.nowMs, ratio, why: 'measuring without for comparison' } : { ...state, ratio };
    case 'check':
      return state.otherRate >= gainMin * rate
        ? { mode: 'on', otherRate: rate, decidedAtMs: sample.nowMs, ratio, why: `${percent(state.otherRate, rate)} of the guest's bytes a second against without` }
        : { mode: 'off', otherRate: state.otherRate, decidedAtMs: sample.nowMs, ratio, why: 'the link is no longer the bottleneck' };
    default: return state.mode satisfies never;
  }
}

function percent(a: number, b: number): string {
  return `${b > 0 ? Math.round(a / b * 100) : 100} %`;
}
