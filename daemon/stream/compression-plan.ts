/**
 * Whether records are compressed, decided from measurement as it runs. Pure: a state and a sample in, the next state out.
 *
 * Compression costs processor time on the source and on the target, and pays only while the link is what holds the stream
 * up. So it is off; when senders mostly wait for the link, and this host's processors have time to spare, it is tried, and
 * kept only while more of the guest's bytes go through a second with it than without, because they became fewer.
 */

/** Over a stretch in which something was being sent. */
export interface SendingSample {
  readonly nowMs: number;
  /** Time with a delta or a pass under way, ms. */
  readonly activeMs: number;
  /** Part of it in which a sender waited for credit or socket, ms. */
  readonly waitedMs: number;
  /** The guest's bytes that went out, before compression; zeroes, which have no payload either way, are not among them. */
  readonly rawBytes: number;
  /** Payload bytes that went out. */
  readonly payloadBytes: number;
  /** Processor time of this process over the same stretch, ms. */
  readonly cpuMs: number;
  /** Share of this host's processor time that nobody used meanwhile, 0 to 1. */
  readonly idleShare: number;
}

export interface CompressionState {
  /** `trial`: on, to be compared with before; `check`: off, to be compared with before. */
  readonly mode: 'off' | 'trial' | 'on' | 'check';
  /** False while the first sample after a change is awaited: it is full of what was sent the other way. */
  readonly isSettled: boolean;
  /** Bytes a second of the other choice, when it was last measured. */
  readonly otherRate: number;
  readonly decidedAtMs: number;
  /** Raw over payload bytes, of the last sample with compression. */
  readonly ratio: number;
  readonly why: string;
}

/** Shortest stretch that is judged, ms of sending: over less, a rate says more about buffers than about the link (seen: by a factor of two either way at 500). */
export const sampleMs = 1_000;
/** Pause between trials, ms. */
export const trialEveryMs = 30_000;
/** The sender is held up by the link when it waits for more than this share of its time, with processor to spare. */
const waitShareMin = 0.5;
const cpuShareMax = 0.8;
/** Compression needs time that nobody else wants: the guests come first. */
const idleShareMin = 0.2;
/** What compression must gain to be kept, in speed and in bytes: speed alone also varies by itself. */
const gainMin = 1.1;

export const initialCompression: CompressionState = {
  mode: 'off', isSettled: true, otherRate: 0, decidedAtMs: -trialEveryMs, ratio: 1, why: 'the link has not been the bottleneck',
};

export function isCompressing(state: CompressionState): boolean {
  return state.mode === 'trial' || state.mode === 'on';
}

export function planCompression(state: CompressionState, sample: SendingSample): CompressionState {
  const rate = sample.rawBytes / sample.activeMs * 1000;
  const ratio = isCompressing(state) && sample.payloadBytes > 0 ? sample.rawBytes / sample.payloadBytes : state.ratio;
  const now = { isSettled: true, decidedAtMs: sample.nowMs, ratio };
  if (!state.isSettled) return { ...state, isSettled: true };
  const mayTry = sample.nowMs - state.decidedAtMs >= trialEveryMs;
  switch (state.mode) {
    case 'off':
      if (!mayTry) return state;
      if (sample.waitedMs <= waitShareMin * sample.activeMs) return { ...state, why: 'the link is not the bottleneck' };
      if (sample.cpuMs > cpuShareMax * sample.activeMs || sample.idleShare < idleShareMin) return { ...state, why: 'the processor is the bottleneck, not the link' };
      return { ...now, mode: 'trial', isSettled: false, otherRate: rate, why: 'the link holds the stream up: trying' };
    case 'trial': return judge(now, rate, state.otherRate, rate);
    case 'on':
      if (sample.idleShare < idleShareMin) return { ...now, mode: 'off', otherRate: rate, why: 'the processor became the bottleneck' };
      return mayTry ? { ...now, mode: 'check', isSettled: false, otherRate: rate, why: 'measuring without for comparison' } : { ...state, ratio };
    case 'check': return judge(now, state.otherRate, rate, state.otherRate);
    default: return state.mode satisfies never;
  }
}

/** `keptRate`: what the next comparison starts from when compression stays. */
function judge(now: Pick<CompressionState, 'isSettled' | 'decidedAtMs' | 'ratio'>, withRate: number, withoutRate: number, keptRate: number): CompressionState {
  const said = `${percent(withRate, withoutRate)} of the speed without, the bytes ${now.ratio.toFixed(1)} times fewer`;
  return withRate >= gainMin * withoutRate && now.ratio >= gainMin
    ? { ...now, mode: 'on', otherRate: withoutRate, why: `it pays: ${said}` }
    : { ...now, mode: 'off', otherRate: keptRate, why: `it does not pay: ${said}` };
}

function percent(a: number, b: number): string {
  return `${b > 0 ? Math.round(a / b * 100) : 100} %`;
}
