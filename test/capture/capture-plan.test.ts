/** Which capture `auto` takes, and why. */
import t from 'tap';
import { planCapture, type CapturePlanInput } from '../../daemon/capture/writelog/capture-plan.ts';

const auto = (input: Partial<CapturePlanInput>): { capture: string; why: string } => planCapture({ choice: 'auto', rpoMs: 5000, now: 'cbt', pattern: null, ...input });

t.test('what was chosen is what is taken', (t) => {
  for (const choice of ['cbt', 'writelog'] as const) t.match(planCapture({ choice, rpoMs: 5000, now: 'cbt', pattern: null }), { capture: choice, why: 'chosen by the operator' });
  t.end();
});

t.test('auto', (t) => {
  t.match(auto({ rpoMs: 1999 }), { capture: 'writelog', why: /every 1999 ms/ });
  t.match(auto({}), { capture: 'cbt', why: /every 5 s/ });
  t.match(auto({ pattern: { writtenBytes: 4096, changedBytes: 4 * 4096 } }), { capture: 'writelog', why: /4 bytes would be copied/ });
  t.match(auto({ pattern: { writtenBytes: 4096, changedBytes: 4 * 4096 - 1 } }), { capture: 'cbt' });
  t.match(auto({ now: 'writelog' }), { capture: 'writelog' }, 'no change before something is known');
  t.match(auto({ now: 'writelog', pattern: { writtenBytes: 4 * 4096, changedBytes: 4096 } }), { capture: 'cbt', why: /4 times between two points/ });
  t.match(auto({ now: 'writelog', pattern: { writtenBytes: 4095, changedBytes: 4096 } }), { capture: 'writelog' });
  t.end();
});
