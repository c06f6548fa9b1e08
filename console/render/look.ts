/**
 * The look of all that the command line prints: tables without frames (they are read by eyes and by `grep` alike), and a few
 * colours that are only there on a terminal. Pure: whether there is a terminal is told by the caller.
 */
import { inspect, stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';

export interface Look {
  readonly isColour: boolean;
  /** Columns of the terminal. */
  readonly width: number;
}

/** For pipes and files: no colour, and lines as long as they are. */
export const plainLook: Look = { isColour: false, width: Number.POSITIVE_INFINITY };

export type Tone = 'good' | 'working' | 'bad' | 'quiet' | 'strong';

const colours = { good: 'green', working: 'yellow', bad: 'red', quiet: 'dim', strong: 'bold' } as const satisfies Record<Tone, string>;

export function tint(look: Look, tone: Tone, text: string): string {
  // `styleText` would look at stdout for itself; whether to colour is the caller's decision.
  const [on, off] = inspect.colors[colours[tone]]!;
  return look.isColour ? `\u001b[${on}m${text}\u001b[${off}m` : text;
}

export interface Column {
  readonly head: string;
  readonly align?: 'right';
  /** Left out, the last one first, where the terminal is too narrow. */
  readonly isExtra?: true;
}

export function formatTable(look: Look, columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const text = drawTable(look, columns, rows);
  const last = columns.findLastIndex((column) => column.isExtra === true);
  const isTooWide = text.split('\n').some((line) => stripVTControlCharacters(line).length > look.width);
  if (!isTooWide || last < 0) return text;
  return formatTable(look, columns.toSpliced(last, 1), rows.map((row) => row.toSpliced(last, 1)));
}

function drawTable(look: Look, columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: columns.map(({ head }) => tint(look, 'quiet', head)),
    colAligns: columns.map(({ align }) => align ?? 'left'),
    chars: {
      top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '',
      left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  ',
    },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  table.push(...rows.map((row) => [...row]));
  return table.toString().split('\n').map((line) => line.trimEnd()).join('\n');
}
