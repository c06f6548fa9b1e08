/**
 * The reference of docs/, made from what the product itself goes by: the commands, the shapes of the configs, the table of codes, the routes
 * and the metrics. A test compares what is committed with what these make, so that no page can say what is not so.
 */
import { apiPage } from './api-page.ts';
import { codePage } from './code-page.ts';
import { commandPage } from './command-page.ts';
import { configPage } from './config-page.ts';
import { metricPage } from './metric-page.ts';

export const referenceFolder = 'docs/reference';

/** Under every title. */
export const madeFrom = (what: string): string => `*Made from ${what} by \`npm run reference\`; do not edit.*`;

/** By file name; `root` holds the sources. A page about what this release does not have is left out. */
export async function referencePages(root: string): Promise<ReadonlyMap<string, string>> {
  const pages = new Map([['api.md', apiPage()], ['codes.md', codePage()], ['commands.md', commandPage()], ['configuration.md', await configPage(root)]]);
  const metrics = await metricPage(root);
  return metrics === null ? pages : pages.set('metrics.md', metrics);
}

/** One cell of a table: no line ends, no column ends. */
export function cell(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').replaceAll('|', '\\|');
}

export function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  return [`| ${heads.join(' | ')} |`, `|${heads.map(() => ' --- ').join('|')}|`, ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`)].join('\n');
}
