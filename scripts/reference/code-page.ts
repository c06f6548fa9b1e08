/** The codes of failures, as `afterimage explain` has them. */
import { faultTable } from '../../journal/fault.ts';
import { madeFrom } from './pages.ts';

export function codePage(): string {
  return [
    '# Codes', '', madeFrom('the table of codes'), '',
    'Every failure that the command line, the API, the logs or `status` name has one of these codes. `afterimage explain CODE` prints the same.', '',
    ...Object.entries(faultTable).flatMap(([code, { meaning, daemonDoes, operatorCan }]) => [`## ${code}`, '', meaning, '', `- **The daemon**: ${daemonDoes}`, `- **You can**: ${operatorCan}`, '']),
  ].join('\n');
}
