/**
 * The power is cut at every mutating operation of a group's life, and again during the recovery, with any subset of what was
 * not synced landing. What was acknowledged is there and whole, what was not is whole or absent, the replica is the model's at
 * the newest point, and so is every boundary of the history. AFTERIMAGE_CRASH_ROUNDS asks for more than one life per operation.
 */
import t from 'tap';
import { turns } from '../support/extent.ts';
import { makeCrashScript } from './crash-script.ts';
import { live } from './lives.ts';

const rounds = turns('AFTERIMAGE_CRASH_ROUNDS', 1, 5);

t.test('the power is cut at every operation', async (t) => {
  let lives = 0;
  for (let round = 0; round < rounds; round++) {
    const script = makeCrashScript(7 + round, 12);
    let isOver = false;
    for (let cutAt = 0; !isOver; cutAt++) {
      const seed = round * 100_000 + cutAt * 2;
      // Every third time the second cut comes before recovery has done anything: what the first left is looked at as it is.
      const cutAgainAt = (cutAt + round) % 3 === 0 ? 0 : 1 + (cutAt * 7) % 60;
      lives++;
      try {
        isOver = await live(script, seed, cutAt, cutAgainAt);
      } catch (error) {
        t.fail(`cut at ${cutAt}, again at ${cutAgainAt}, seed ${seed}: ${String(error)}`, { found: error });
        return;
      }
    }
  }
  t.ok(lives > 200, `${lives} lives`);
});
