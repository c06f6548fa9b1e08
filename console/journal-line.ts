/**
 * A log entry as journald takes it from a service's standard output: its priority in front (sd-daemon(3), `<4>`), then what happened and its facts as
 * `key=value`, values with anything odd in them as JSON, so that a program can read them again. Each line of a stack carries the priority as well.
 */
import { fstatSync } from 'node:fs';
import { printable } from './render/units.ts';

/** syslog(3): 2 critical, 3 error, 4 warning, 6 information, 7 debug. */
const priorities: readonly (readonly [number, number])[] = [[60, 2], [50, 3], [40, 4], [30, 6]];

/** Whether standard output is the stream to journald that the service manager says it made (systemd.exec(5), JOURNAL_STREAM: device and inode). */
export function isJournalStream(fd: number, environment: NodeJS.ProcessEnv = process.env): boolean {
  const said = /^(\d+):(\d+)$/.exec(environment['JOURNAL_STREAM'] ?? '');
  if (said === null) return false;
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return BigInt(said[1]!) === dev && BigInt(said[2]!) === ino;
}

/** From pino's JSON; with the line end. */
export function formatJournalLine(line: string): string {
  // The journal has time, process and unit of its own.
  const { level, time: _time, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const priority = `<${priorities.find(([from]) => Number(level) >= from)?.[1] ?? 7}>`;
  const facts = Object.entries(rest).map(([key, value]) => `${key}=${plain(value)}`);
  const stack = typeof err === 'object' && err !== null && 'stack' in err ? String(err.stack).split('\n').map((part) => `    ${printable(part)}`) : [];
  return `${[[printable(String(msg ?? '')), ...facts].join(' '), ...stack].map((part) => `${priority}${part}\n`).join('')}`;
}

function plain(value: unknown): string {
  return typeof value === 'string' && /^[\w.:/@+-]+$/.test(value) ? value : printable(JSON.stringify(value) ?? 'null');
}
