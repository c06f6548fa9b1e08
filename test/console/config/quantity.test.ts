import t from 'tap';
import { readDurationMs, readHostPort, readRate, readSizeBytes } from '../../../console/config/quantity.ts';

t.test('sizes', async (t) => {
  for (const [text, bytes] of [['4GiB', 4 * 1024 ** 3], ['1.5 MiB', 1_572_864], ['512B', 512], ['10MB', 10_000_000], [' 1TiB ', 1024 ** 4]] as const) {
    t.equal(readSizeBytes(text), bytes, text);
  }
  for (const text of ['', '4', '4G', '4gib', '-1GiB', '1e3MiB', '1,5GiB', 'GiB', '4GiB5', '99999999TiB', '4toString', '0x10MiB', '４GiB']) {
    t.equal(readSizeBytes(text), undefined, text);
  }
});

t.test('rates', async (t) => {
  t.equal(readRate('100MiB'), 100 * 1024 ** 2);
  t.equal(readRate('100MiB/s'), 100 * 1024 ** 2);
  t.equal(readRate('0'), 0, 'no limit');
  t.equal(readRate('100'), undefined);
  t.equal(readRate('100MiB/h'), undefined);
});

t.test('durations', async (t) => {
  for (const [text, ms] of [['5s', 5000], ['1h', 3_600_000], ['250ms', 250], ['1.5m', 90_000], ['2d', 172_800_000]] as const) t.equal(readDurationMs(text), ms, text);
  for (const text of ['5', '5 seconds', '-5s', '5S', '', 's']) t.equal(readDurationMs(text), undefined, text);
});

t.test('addresses', async (t) => {
  t.strictSame(readHostPort('bravo'), { host: 'bravo', port: null });
  t.strictSame(readHostPort('bravo.example.org:7228'), { host: 'bravo.example.org', port: 7228 });
  t.strictSame(readHostPort('[::1]:80'), { host: '::1', port: 80 });
  t.strictSame(readHostPort('[fe80::1]'), { host: 'fe80::1', port: null });
  t.strictSame(readHostPort('::'), { host: '::', port: null });
  for (const text of ['', ':80', 'a:0', 'a:65536', 'a:b', 'a b', 'http://a', '[::1', 'a:1:2x']) t.equal(readHostPort(text), undefined, text);
});
