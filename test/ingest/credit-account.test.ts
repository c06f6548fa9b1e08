import t from 'tap';
import fc from 'fast-check';
import { creditBytes, frameBytesMax } from '../../journal/limits.ts';
import { CreditAccount, creditReturnBytes } from '../../replica-target/ingest/credit-account.ts';

t.test('whatever arrives and is consumed, in whatever order: never more outstanding than granted, never a source that waits for ever', async (t) => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 80, max: frameBytesMax })), { maxLength: 300 }), (steps) => {
    const account = new CreditAccount();
    const waiting: number[] = [];
    let credit = creditBytes;
    for (const [isArrival, bytes] of steps) {
      if (isArrival) {
        const isAllowed = account.arrive(bytes);
        if (isAllowed !== bytes <= credit) return false;
        if (!isAllowed) continue;
        credit -= bytes;
        waiting.push(bytes);
      } else {
        const consumed = waiting.shift();
        if (consumed !== undefined) credit += account.consume(consumed);
      }
      if (account.outstandingBytes > creditBytes || account.outstandingBytes !== waiting.reduce((sum, one) => sum + one, 0)) return false;
    }
    for (const bytes of waiting) credit += account.consume(bytes);
    return credit >= frameBytesMax && credit > creditBytes - creditReturnBytes;
  }));
});
