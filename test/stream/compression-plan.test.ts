import t from 'tap';
import fc from 'fast-check';
import { initialCompression, isCompressing, planCompression, sampleMs, trialEveryMs, type CompressionState, type SendingSample } from '../../daemon/stream/compression-plan.ts';

/** A link of so many bytes a second, a processor that compresses and sends so many, data that shrinks by a ratio. */
interface World { readonly linkRate: number; readonly plainRate: number; readonly packRate: number; readonly ratio: number; readonly idleShare: number }

function sampleOf(world: World, isOn: boolean, nowMs: number): SendingSample {
  const byCpu = isOn ? world.packRate : world.plainRate;
  const byLink = world.linkRate * (isOn ? world.ratio : 1);
  const rate = Math.min(byCpu, byLink);
  const rawBytes = rate * sampleMs / 1000;
  return {
    nowMs, activeMs: sampleMs, waitedMs: byLink < byCpu ? sampleMs * (1 - byLink / byCpu) : 0, rawBytes, payloadBytes: rawBytes / (isOn ? world.ratio : 1),
    cpuMs: sampleMs * rate / byCpu, idleShare: world.idleShare,
  };
}

function run(world: World, samples: number, from: CompressionState = initialCompression, fromMs = 0): { state: CompressionState; onShare: number; atMs: number } {
  let state = from;
  let on = 0;
  let atMs = fromMs;
  for (let i = 0; i < samples; i++) {
    atMs += sampleMs;
    if (isCompressing(state)) on += 1;
    state = planCompression(state, sampleOf(world, isCompressing(state), atMs));
  }
  return { state, onShare: on / samples, atMs };
}

const slow: World = { linkRate: 10e6, plainRate: 700e6, packRate: 400e6, ratio: 2.5, idleShare: 0.7 };
const loopback: World = { linkRate: 5e9, plainRate: 700e6, packRate: 400e6, ratio: 2.5, idleShare: 0.3 };

t.test('a fast link is never tried', async (t) => {
  const { state, onShare } = run(loopback, 1000);
  t.equal(onShare, 0);
  t.match(state, { mode: 'off', why: /link is not the bottleneck/ });
});

t.test('a slow link with data that shrinks: on, and stays', async (t) => {
  const { state, onShare } = run(slow, 1000);
  t.equal(state.mode, 'on');
  t.ok(onShare > 0.9, 'but for the comparisons');
  t.match(state.why, /it pays: 250 %/);
  t.equal(state.ratio, 2.5);
});

t.test('a slow link with data that does not shrink: tried now and then, never kept', async (t) => {
  const { state, onShare } = run({ ...slow, ratio: 1.02 }, 1000);
  t.equal(state.mode, 'off');
  t.ok(onShare <= 2.5 * sampleMs / trialEveryMs, `one trial in ${trialEveryMs} ms`);
});

t.test('a rate that grew by itself is not compression’s merit', async (t) => {
  let { state, atMs } = run({ ...slow, ratio: 1 }, 1);
  t.equal(state.mode, 'trial');
  state = run({ ...slow, linkRate: 30e6, ratio: 1 }, 2, state, atMs).state;
  t.equal(state.mode, 'off');
});

t.test('no processor time to spare: off, and off again when it goes', async (t) => {
  t.equal(run({ ...slow, idleShare: 0.1 }, 100).onShare, 0);
  const on = run(slow, 100);
  t.equal(on.state.mode, 'on');
  const { state } = run({ ...slow, idleShare: 0.05 }, 2, on.state, on.atMs);
  t.match(state, { mode: 'off', why: /processor became/ });
});

t.test('the link becomes fast: off at the next comparison', async (t) => {
  const on = run(slow, 100);
  const { state } = run(loopback, 3 * trialEveryMs / sampleMs, on.state, on.atMs);
  t.equal(state.mode, 'off');
});

t.test('whatever the world is, it ends up with what is faster there', async (t) => {
  fc.assert(fc.property(
    fc.record({ linkRate: fc.integer({ min: 1_000_000, max: 2_000_000_000 }), ratio: fc.double({ min: 1, max: 10, noNaN: true }), idleShare: fc.double({ min: 0.3, max: 1, noNaN: true }) }),
    (facts) => {
      const world = { ...slow, ...facts };
      const { state } = run(world, 200);
      const without = Math.min(world.plainRate, world.linkRate);
      const gain = Math.min(world.packRate, world.linkRate * world.ratio) / without;
      // Near the threshold either is right.
      if (gain > 1.12 && world.linkRate < 0.45 * world.plainRate && world.ratio > 1.12) return state.mode === 'on' || state.mode === 'check';
      return gain > 1.08 || !isCompressing(state) || state.mode === 'trial';
    },
  ));
});
