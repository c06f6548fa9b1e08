import fc from 'fast-check';
import t from 'tap';
import { readDurationMs, readSizeBytes } from '../../../console/config/quantity.ts';
import { absent, formatBytes, formatInstant, formatRate, formatShare, formatSpan, printable } from '../../../console/render/units.ts';

t.test('sizes', async (t) => {
  for (const [bytes, text] of [[0, '0 B'], [1, '1 B'], [512, '512 B'], [999, '999 B'], [1000, '1.0 KiB'], [1536, '1.5 KiB'], [10 * 1024, '10 KiB'], [1023 * 1024, '1.0 MiB'], [20 * 1024 ** 3, '20 GiB'], [64 * 1024 ** 4, '64 TiB']] as const) {
    t.equal(formatBytes(bytes), text, String(bytes));
  }
  t.equal(formatBytes(null), absent);
  t.equal(formatRate(100 * 1024 ** 2), '100 MiB/s');
  t.equal(formatRate(null), absent);
});

t.test('spans', async (t) => {
  for (const [ms, text] of [[0, '0 ms'], [41.4, '41 ms'], [100, '0.1 s'], [3149, '3.1 s'], [9949, '9.9 s'], [9950, '10 s'], [59_499, '59 s'], [59_600, '1 min'], [605_000, '10 min 5 s'], [3_599_600, '1 h'], [7_800_000, '2 h 10 min'], [86_399_000, '1 d'], [273_600_000, '3 d 4 h']] as const) {
    t.equal(formatSpan(ms), text, String(ms));
  }
  t.equal(formatSpan(-5000), '−5.0 s');
  t.equal(formatSpan(null), absent);
});

t.test('what is written can be read back, nearly', async () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 49 }), (bytes) => {
    const back = readSizeBytes(formatBytes(bytes));
    return back !== undefined && Math.abs(back - bytes) <= bytes * 0.06;
  }));
  fc.assert(fc.property(fc.integer({ min: 100, max: 59_000 }), (ms) => {
    const back = readDurationMs(formatSpan(ms));
    return back !== undefined && Math.abs(back - ms) <= 500;
  }));
});

t.test('the rest', async (t) => {
  t.equal(formatShare(0.999), '99 %', 'full is only what is whole');
  t.equal(formatShare(1), '100 %');
  t.match(formatInstant(Date.UTC(2030, 0, 2, 3, 4, 5)), /^2030-01-0\d \d\d:\d\d:05$/);
  t.equal(formatInstant(null), absent);
  t.equal(printable('a\u001b[31mb\nc\u202ed'), 'a [31mb c d', 'nothing steers the terminal');
});
