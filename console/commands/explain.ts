/** `explain CODE`: the row of the fault table. */
import { InvalidArgumentError, type Command } from 'commander';
import { faultTable, type FaultCode } from '../../journal/fault.ts';
import { formatCodes, formatExplanation } from '../render/fault.ts';
import { lookOf, print, printJson } from '../terminal.ts';

export function addExplainCommand(program: Command): void {
  program.command('explain').description('what a code means, what the daemon does about it, what you can do').argument('[code]', 'all of them when left out', readCode)
    .option('--json', 'as JSON')
    .action((code: FaultCode | undefined, option: { readonly json?: true }) => {
      const look = lookOf(process.stdout);
      if (option.json === true) printJson(code === undefined ? faultTable : { code, ...faultTable[code] });
      else print(code === undefined ? formatCodes(look) : formatExplanation(look, code));
    });
}

function readCode(text: string): FaultCode {
  const code = text.trim().toUpperCase().replaceAll('-', '_');
  if (Object.hasOwn(faultTable, code)) return code as FaultCode;
  const near = Object.keys(faultTable).filter((known) => known.startsWith(`${code.split('_')[0]}_`));
  throw new InvalidArgumentError(near.length === 0 ? 'No such code: `afterimage explain` lists them.' : `No such code; there are ${near.join(', ')}.`);
}
