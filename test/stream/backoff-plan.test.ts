import t from 'tap';
import { backoffMsMax, backoffMsMin, noFailures, planBackoff, stableSessionMs } from '../../daemon/stream/backoff-plan.ts';

t.test('pauses grow to their limit, vary, and start over after a sound session', async (t) => {
  let backoff = noFailures;
  const delays: number[] = [];
  for (let i = 0; i < 40; i++) {
    const plan = planBackoff(backoff, 0, 0.999);
    backoff = plan.next;
    delays.push(plan.delayMs);
  }
  t.ok(delays[0]! <= backoffMsMin && delays[0]! >= backoffMsMin / 2);
  t.ok(delays.every((delay, i) => i === 0 || delay >= delays[i - 1]!));
  t.ok(delays[39]! > backoffMsMax * 0.9 && delays[39]! <= backoffMsMax);
  t.not(planBackoff(backoff, 0, 0.1).delayMs, planBackoff(backoff, 0, 0.9).delayMs);
  t.ok(planBackoff(backoff, stableSessionMs, 0.5).delayMs <= backoffMsMin);
  t.ok(planBackoff(backoff, stableSessionMs - 1, 0.5).delayMs > backoffMsMin, 'a session that fell at once is no recovery');
});
