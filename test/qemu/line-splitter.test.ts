import fc from 'fast-check';
import t from 'tap';
import { LineSplitter } from '../../qemu/line-splitter.ts';

t.test('lines come out whole however the stream is cut', async (t) => {
  fc.assert(fc.property(fc.array(fc.string().filter((line) => !line.includes('\n'))), fc.array(fc.nat(20)), (lines, cuts) => {
    const stream = Buffer.from(lines.map((line) => `${line}\n`).join(''), 'utf8');
    const splitter = new LineSplitter(1000);
    const got: string[] = [];
    let at = 0;
    for (const cut of [...cuts, stream.length]) {
      const isWithin = splitter.push(stream.subarray(at, at + cut), (line) => { got.push(line); return true; });
      if (!isWithin) return false;
      at = Math.min(stream.length, at + cut);
    }
    return JSON.stringify(got) === JSON.stringify(lines.map((line) => Buffer.from(line, 'utf8').toString('utf8')));
  }));
});

t.test('the limit holds for finished and unfinished lines, in one piece or many', async (t) => {
  const keep = (): boolean => true;
  t.equal(new LineSplitter(8).push(Buffer.from('12345678\n'), keep), true);
  t.equal(new LineSplitter(8).push(Buffer.from('123456789\n'), keep), false);
  t.equal(new LineSplitter(8).push(Buffer.from('123456789'), keep), false);
  const dribbled = new LineSplitter(8);
  for (let i = 0; i < 8; i++) t.equal(dribbled.push(Buffer.from('x'), keep), true);
  t.equal(dribbled.push(Buffer.from('x'), keep), false);
});

t.test('stops when told', async (t) => {
  const got: string[] = [];
  new LineSplitter(8).push(Buffer.from('a\nb\nc\n'), (line) => { got.push(line); return line !== 'b'; });
  t.same(got, ['a', 'b']);
});
