/** The daemon's log: one plain line per entry on a terminal, lines with a priority where journald reads them, JSON lines on stdout for whoever else does. */
import { pino, type DestinationStream, type Logger } from 'pino';
import type { LogLevel } from './config/schema.ts';
import { formatJournalLine, isJournalStream } from './journal-line.ts';
import { tint, type Look, type Tone } from './render/look.ts';
import { printable } from './render/units.ts';
import { lookOf } from './terminal.ts';

export function openLog(level: LogLevel, role: string): Logger {
  const stdout = pino.destination({ dest: 1, sync: true });
  const stream: DestinationStream = process.stdout.isTTY ? terminalStream(lookOf(process.stdout))
    : isJournalStream(1) ? { write: (line) => { stdout.write(formatJournalLine(line)); } }
    : stdout;
  return pino({ level, base: { role }, timestamp: pino.stdTimeFunctions.isoTime }, stream);
}

function terminalStream(look: Look): DestinationStream {
  return { write: (line) => { process.stdout.write(`${formatLogLine(look, line)}\n`); } };
}

const levels: Readonly<Record<number, { readonly text: string; readonly tone: Tone }>> = {
  10: { text: 'trace', tone: 'quiet' }, 20: { text: 'debug', tone: 'quiet' }, 30: { text: 'info ', tone: 'good' },
  40: { text: 'warn ', tone: 'working' }, 50: { text: 'error', tone: 'bad' }, 60: { text: 'fatal', tone: 'bad' },
};

/** `03:04:05.678 warn  message  guest=web code=QMP_CLOSED`; the stack of an error on lines of its own. */
export function formatLogLine(look: Look, line: string): string {
  const { level, time, msg, role: _role, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const known = levels[Number(level)];
  const facts = Object.entries(rest).map(([key, value]) => `${key}=${printable(typeof value === 'string' ? value : JSON.stringify(value))}`);
  const stack = typeof err === 'object' && err !== null && 'stack' in err ? `\n${String(err.stack).split('\n').map((part) => `    ${printable(part)}`).join('\n')}` : '';
  return [
    tint(look, 'quiet', String(time).slice(11, 23)),
    known === undefined ? String(level) : tint(look, known.tone, known.text),
    `${printable(String(msg ?? ''))}${facts.length === 0 ? '' : `  ${tint(look, 'quiet', facts.join(' '))}`}${stack}`,
  ].join(' ');
}
