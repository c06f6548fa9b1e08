import t from 'tap';

import { brokenPromises, counterLines, lostMs, type Figures } from '../../scripts/demonstration/figures.ts';

const line = (text: string, atMs: number) => ({ text, atMs, index: 0, match: [] });
const lines = counterLines([
  line('AF COUNTER-FOUND 0 2000', 1),
  line('AF COUNTER 1 2100', 100),
  line('AF COUNTER 2 2200', 200),
  line('AF COUNTER 4 2400', 400),
  line('AF COUNTER 5 25', 500),
  line('AF COUN', 510),
]);

t.test('counters are read from whole lines of their own kind', (t) => {
  t.strictSame(lines.map(({ counter }) => counter), [1, 2, 4, 5]);
  t.end();
});

t.test('what was lost is told from when the recovered counter was seen to the kill', (t) => {
  t.equal(lostMs(lines, 5, 560), 0, 'all of it is there');
  t.equal(lostMs(lines, 6, 560), 0, 'more than was reported is there');
  t.equal(lostMs(lines, 4, 560), 160);
  t.equal(lostMs(lines, 3, 560), 360, 'a count whose line was never seen: from the one before, never from the one after');
  t.equal(lostMs(lines, 0, 560), 460, 'all that was seen');
  t.equal(lostMs([], 7, 560), 0);
  t.end();
});

t.test('promises', (t) => {
  const good: Figures = {
    guest_disk_bytes: 1, seed_ms: 1, points: 1, rpo_ms_p50: 1, rpo_ms_p99: 1, rto_ms: 1,
    counter_written: 9, counter_recovered: 8, lost_ms: 900, fsck_clean: true,
  };
  t.strictSame(brokenPromises(good, 1000), []);
  t.match(brokenPromises({ ...good, fsck_clean: false }, 1000), [/not clean/]);
  t.match(brokenPromises({ ...good, counter_recovered: 0 }, 1000), [/no counter/]);
  t.match(brokenPromises({ ...good, lost_ms: 4001 }, 1000), [/4001 ms were lost/]);
  t.end();
});
