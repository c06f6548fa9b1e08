import t from 'tap';

import { brokenPointPromises, brokenPromises, counterLines, counterRange, lostMs, type Figures, type PointsFigures } from '../../scripts/demonstration/figures.ts';

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

t.test('what a point may hold: not less than was reported before it was cut, not more than soon after', (t) => {
  const at = (counter: number, atMs: number) => line(`AF COUNTER ${counter} 1`, atMs - performance.timeOrigin);
  const cutAtMs = 1_900_000_000_000;
  const serial = [at(1, cutAtMs - 5000), at(2, cutAtMs - 300), at(3, cutAtMs - 100), at(4, cutAtMs + 100), at(5, cutAtMs + 1600), at(6, cutAtMs + 9000)];
  t.strictSame(counterRange(serial, cutAtMs), { least: 2, most: 5 });
  t.strictSame(counterRange(serial, cutAtMs - 10_000), { least: 0, most: 1 });
  t.strictSame(counterRange(serial, cutAtMs + 20_000), { least: 6, most: Number.POSITIVE_INFINITY });
  t.end();
});

t.test('promises of the points', (t) => {
  const tested = { point: '1.3', point_time: '', age_ms: 1, counter_least: 2, counter_most: 5, counter_found: 3, agrees: true, fsck_clean: true, rto_ms: 1 };
  const good: PointsFigures = { guest_disk_bytes: 1, points: 9, tests: [tested], agrees: true, points_while_testing: 3, rpo_ms: 1000, rpo_ms_max_while_testing: 4000, leftovers: 0 };
  t.strictSame(brokenPointPromises(good), []);
  t.match(brokenPointPromises({ ...good, tests: [{ ...tested, agrees: false, counter_found: 9 }] }), [/point 1\.3 held counter 9, and 2 to 5/]);
  t.match(brokenPointPromises({ ...good, tests: [{ ...tested, fsck_clean: false }] }), [/not clean/]);
  t.match(brokenPointPromises({ ...good, rpo_ms_max_while_testing: 4001 }), [/4001 ms/]);
  t.match(brokenPointPromises({ ...good, points_while_testing: 0, leftovers: 2 }), [/no point/, /2 things/]);
  t.end();
});
