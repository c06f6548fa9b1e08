/**
 * The process behind pause-guard.ts: waits for the end of its input, which is the daemon's, and has the guests go on that are noted as paused. It ends when none is left,
 * or when they have not answered for long: then another daemon has their QMP sockets, and does the same when it starts.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PausedNotes } from './paused-notes.ts';

const tries = 60;
const againMs = 500;

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGPIPE'] as const) process.on(signal, () => undefined);
process.stdout.on('error', () => undefined);

const notes = new PausedNotes(process.argv[2] ?? '');
const daemonEnds = new Promise<void>((resolve) => {
  process.stdin.once('end', resolve).once('close', resolve).once('error', () => resolve());
  process.stdin.resume();
});
process.stdout.write('ready\n');
await daemonEnds;
for (let at = 0; at < tries && (await notes.goOn()).length > 0; at += 1) await delay(againMs);
process.exit(0);
