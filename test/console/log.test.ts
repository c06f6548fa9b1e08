import t from 'tap';
import { formatLogLine } from '../../console/log.ts';
import { plainLook } from '../../console/render/look.ts';

t.test('one line per entry, facts behind it, stacks below', async (t) => {
  const line = (entry: object) => formatLogLine(plainLook, JSON.stringify({ level: 30, time: '2030-01-02T03:04:05.678Z', role: 'source', ...entry }));
  t.equal(line({ msg: 'ready' }), '03:04:05.678 info  ready');
  t.equal(line({ level: 40, guest: 'web', ms: 5, facts: { a: 1 }, msg: 'odd \u001b[2J' }), '03:04:05.678 warn  odd  [2J  guest=web ms=5 facts={"a":1}');
  t.equal(line({ level: 60, err: { message: 'x', stack: 'Error: x\n    at y' }, msg: 'a bug' }), '03:04:05.678 fatal a bug\n    Error: x\n        at y');
  t.equal(line({ level: 35 }), '03:04:05.678 35 ');
});
