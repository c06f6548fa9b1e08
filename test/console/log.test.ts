import { fstatSync, openSync, closeSync } from 'node:fs';
import t from 'tap';
import { formatJournalLine, isJournalStream } from '../../console/journal-line.ts';
import { formatLogLine } from '../../console/log.ts';
import { plainLook } from '../../console/render/look.ts';

t.test('one line per entry, facts behind it, stacks below', async (t) => {
  const line = (entry: object) => formatLogLine(plainLook, JSON.stringify({ level: 30, time: '2030-01-02T03:04:05.678Z', role: 'source', ...entry }));
  t.equal(line({ msg: 'ready' }), '03:04:05.678 info  ready');
  t.equal(line({ level: 40, guest: 'web', ms: 5, facts: { a: 1 }, msg: 'odd \u001b[2J' }), '03:04:05.678 warn  odd  [2J  guest=web ms=5 facts={"a":1}');
  t.equal(line({ level: 60, err: { message: 'x', stack: 'Error: x\n    at y' }, msg: 'a bug' }), '03:04:05.678 fatal a bug\n    Error: x\n        at y');
  t.equal(line({ level: 35 }), '03:04:05.678 35 ');
});

t.test('for the journal: priority, message, facts that can be read again', async (t) => {
  const line = (entry: object) => formatJournalLine(JSON.stringify({ level: 30, time: '2030-01-02T03:04:05.678Z', role: 'source', ...entry }));
  t.equal(line({ msg: 'ready' }), '<6>ready role=source\n');
  t.equal(line({ level: 40, guest: 'web', ms: 5, facts: { a: 1 }, why: 'two words', msg: 'odd \u001b[2J\n<0>forged' }), '<4>odd  [2J <0>forged role=source guest=web ms=5 facts={"a":1} why="two words"\n');
  t.equal(line({ level: 60, err: { message: 'x', stack: 'Error: x\n    at y' }, msg: 'a bug' }), '<2>a bug role=source\n<2>    Error: x\n<2>        at y\n');
  t.match(line({ level: 20, msg: 'x' }), /^<7>/);
  t.match(line({ level: 50, msg: 'x' }), /^<3>/);
});

t.test('the journal’s stream is told from any other by device and inode', async (t) => {
  const fd = openSync(t.testdir({ log: '' }) + '/log', 'a');
  t.teardown(() => closeSync(fd));
  const { dev, ino } = fstatSync(fd);
  t.equal(isJournalStream(fd, { JOURNAL_STREAM: `${dev}:${ino}` }), true);
  t.equal(isJournalStream(fd, { JOURNAL_STREAM: `${dev}:${ino + 1}` }), false, 'inherited from a parent whose output it was');
  t.equal(isJournalStream(fd, {}), false);
});
