import t from 'tap';
import { formatCodes, formatExplanation, formatFault } from '../../../console/render/fault.ts';
import { plainLook } from '../../../console/render/look.ts';
import { exitCodeOf, UsageError } from '../../../console/exit-code.ts';
import { Fault, faultTable, type FaultCode } from '../../../journal/fault.ts';

const codes = Object.keys(faultTable) as FaultCode[];

t.test('every code is explained: meaning, what the daemon does, what a person can do', async (t) => {
  for (const code of codes) {
    const { meaning, daemonDoes, operatorCan } = faultTable[code];
    t.equal(formatExplanation(plainLook, code), `${code}\n  what it means    ${meaning}\n  the daemon now   ${daemonDoes}\n  you can          ${operatorCan}\n`);
    for (const sentence of [meaning, daemonDoes, operatorCan]) t.match(sentence, /^\S.*\.$/, `${code}: ${sentence}`);
  }
  t.equal(formatCodes(plainLook).trimEnd().split('\n').length, codes.length);
});

t.test('a failure names guest and disk, and cannot steer the terminal', async (t) => {
  const first = (fault: Fault): string => formatFault(plainLook, fault).split('\n')[0]!;
  t.equal(first(new Fault('GUEST_CHANGED', 'it was replaced', { guest: 'web', disk: 1 })), 'GUEST_CHANGED: guest web, disk 1: it was replaced');
  t.equal(first(new Fault('GROUP_UNKNOWN', 'no group named web', { group: 'web' })), 'GROUP_UNKNOWN: no group named web', 'not twice');
  t.equal(first(new Fault('QMP_COMMAND', 'QEMU said \u001b[2J\nno')), 'QMP_COMMAND: QEMU said  [2J no');
  t.equal(formatFault(plainLook, new Fault('CONFIG_INVALID', 'f:1:2: a\nf:2:3: b')), 'f:1:2: a\nf:2:3: b\n', 'places first, for editors');
});

t.test('exit codes', async (t) => {
  t.equal(exitCodeOf(new Fault('CONFIG_INVALID', '')), 78);
  t.equal(exitCodeOf(new Fault('DAEMON_UNREACHABLE', '')), 69);
  t.equal(exitCodeOf(new Fault('GROUP_UNKNOWN', '')), 1);
  t.equal(exitCodeOf(new UsageError('')), 64);
  t.equal(exitCodeOf(new TypeError('')), 70);
});
