/** Where the kernel's log does not tell which of two writes came last. */
import t from 'tap';
import { findDoubtful } from '../../daemon/capture/dm-log/out-of-order.ts';
import type { LogEntry } from '../../daemon/capture/writelog/dm-log.ts';
import { flag } from './support/written-log.ts';

const entry = (offset: number, length: number, flags = 0): LogEntry => ({ at: 0, dataAt: 0, endAt: 0, offset, length, flags, mark: null, isDax: false });
const mib = 1024 * 1024;

t.test('doubt', async (t) => {
  t.strictSame(findDoubtful([entry(0, 4096, flag.FUA), entry(0, 4096)]), [{ offset: 0, length: 4096 }], 'a write that may have been completed before');
  t.strictSame(findDoubtful([entry(4096, 8192, flag.FUA | flag.FLUSH), entry(0, 8192, flag.METADATA)]), [{ offset: 4096, length: 4096 }], 'where they are over each other');
  t.strictSame(findDoubtful([entry(mib - 512, mib, flag.FUA), entry(mib / 2, mib)]).reduce((sum, { length }) => sum + length, 0), mib / 2 + 512, 'however large');
});

t.test('no doubt', async (t) => {
  for (const [name, entries] of [
    ['the other way round: logged at once, it came last', [entry(0, 4096), entry(0, 4096, flag.FUA)]],
    ['both at once', [entry(0, 4096, flag.FUA), entry(0, 4096, flag.FUA)]],
    ['both with the flush', [entry(0, 4096), entry(0, 4096)]],
    ['side by side', [entry(0, 4096, flag.FUA), entry(4096, 4096)]],
    ['a flush without data', [entry(0, 0, flag.FLUSH), entry(0, 4096)]],
    ['a discard', [entry(0, 4096, flag.FUA), entry(0, 4096, flag.DISCARD)]],
  ] as const) t.strictSame(findDoubtful(entries), [], name);
});
