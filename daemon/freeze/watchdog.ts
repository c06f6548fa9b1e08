/**
 * The watchdog as a process: reads its order from the command line and words from standard input, writes news to standard output.
 * Started by arm-watchdog.ts in a session of its own; what it does is guard.ts. While a guest may be frozen no signal but SIGKILL
 * ends it, and neither does a daemon that reads no news any more.
 */
import { access, readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { guardFreeze, thawLeftover, type GuardIo } from './guard.ts';
import { guardOrder, guardWord, type GuardWord } from './guard-messages.ts';

const order = guardOrder.parse(JSON.parse(process.argv[2] ?? ''));

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => undefined);
// The daemon is gone: there is nobody to tell, and the thaw goes on.
process.stdout.on('error', () => undefined);

const words: (GuardWord | 'orphaned')[] = [];
let wake: () => void = () => undefined;
let isOver = false;
const hear = (word: GuardWord | 'orphaned'): void => {
  words.push(word);
  wake();
};
const input = createInterface({ input: process.stdin });
process.stdin.on('error', () => input.close());
input.on('line', (line) => hear(guardWord.parse(JSON.parse(line)).word));
input.on('close', () => {
  isOver = true;
  wake();
});

const io: GuardIo = {
  controlGroup: await readFile('/proc/self/cgroup', 'utf8').catch(() => ''),
  say: (news) => { process.stdout.write(`${JSON.stringify(news)}\n`); },
  next: async () => {
    while (words.length === 0 && !isOver) await new Promise<void>((resolve) => { wake = resolve; });
    return words.shift() ?? 'orphaned';
  },
};

const isNoteThere = (): Promise<boolean> => access(order.notePath).then(() => true, () => false);
const code = await (order.task === 'guard' ? guardFreeze(order, io) : thawLeftover(order, io, isNoteThere));
// Not before the last news are in the pipe.
process.stdout.write('', () => process.exit(code));
