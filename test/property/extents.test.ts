/** Extent sets and coalescing against naive arrays of bytes. */
import fc from 'fast-check';
import t from 'tap';
import { coalesceRuns, ExtentSet, RunList } from '../../journal/extents.ts';

const width = 60;
const range = fc.tuple(fc.integer({ min: 0, max: width - 1 }), fc.integer({ min: 0, max: 20 })).map(([start, length]) => ({ start, end: Math.min(width, start + length) }));

t.test('a set equals a naive set after any additions and removals', async (t) => {
  fc.assert(fc.property(fc.array(fc.record({ isAdded: fc.boolean(), at: range }), { maxLength: 40 }), range, (steps, asked) => {
    const set = new ExtentSet();
    const naive = new Array<boolean>(width).fill(false);
    for (const { isAdded, at } of steps) {
      if (isAdded) set.add(at.start, at.end); else set.remove(at.start, at.end);
      naive.fill(isAdded, at.start, Math.max(at.start, at.end));
      const seen = new Array<boolean>(width).fill(false);
      let before = -1;
      for (const { start, end } of set) {
        if (start <= before || end <= start) return false;
        before = end;
        seen.fill(true, start, end);
      }
      if (seen.join() !== naive.join()) return false;
      if (set.totalBytes() !== naive.filter(Boolean).length) return false;
      if (set.overlaps(asked.start, asked.end) !== naive.slice(asked.start, asked.end).some(Boolean)) return false;
    }
    return true;
  }), { numRuns: 500 });
  t.pass();
});

t.test('of overlapping runs the newest wins every byte', async (t) => {
  fc.assert(fc.property(fc.array(range.filter(({ start, end }) => start < end), { maxLength: 40 }), (written) => {
    const runs = new RunList();
    const naive = new Array<number>(width).fill(-1);
    for (const { start, end } of written) naive.fill(runs.push(start, end), start, end);
    const seen = new Array<number>(width).fill(-1);
    let before = 0;
    coalesceRuns(runs, (start, end, run) => {
      if (start < before || end <= start || start < runs.start(run) || end > runs.end(run)) throw new Error('out of order or out of bounds');
      before = end;
      seen.fill(run, start, end);
    });
    return seen.join() === naive.join();
  }), { numRuns: 1000 });
  t.pass();
});

t.test('many runs are packed and grow', async (t) => {
  const runs = new RunList();
  for (let i = 0; i < 1000; i++) runs.push(i * 10, i * 10 + 5);
  let exact = 0;
  coalesceRuns(runs, (start, end, run) => { if (start === run * 10 && end === run * 10 + 5) exact++; });
  t.equal(exact, 1000);
});
