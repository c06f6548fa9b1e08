/** `audit` and `audit verify`: what was done at a daemon, and whether the record of it is as it was written. Both read the files, and need no daemon: so that one that is not trusted any more need not be asked. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { auditFolder, readTrail, type AuditEntry, type AuditHead } from '../../host/audit-format.ts';
import { chooseAny, type ConfigOption } from '../choose-config.ts';
import { exitCodes } from '../exit-code.ts';
import { formatTrail, formatVerified } from '../render/audit.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { withConfig } from './with-config.ts';

const limitDefault = 50;
const limitMax = 100_000;

interface ListOptions extends ConfigOption { readonly json?: true; readonly limit: number }
interface VerifyOptions extends ConfigOption { readonly json?: true; readonly folder?: string; readonly head?: AuditHead }

export function addAuditCommand(program: Command): void {
  const audit = withConfig(program.command('audit').description('what was done here, by whom, with what outcome'))
    .addOption(new Option('--limit <n>', 'the newest so many').argParser(readLimit).default(limitDefault))
    .option('--json', 'as JSON, one list a role')
    .action(list);
  withConfig(audit.command('verify').description('whether the audit trail is as it was written: exit code 1 and the first place where it is not'))
    .option('--folder <folder>', 'of a copy, in place of the daemon’s own')
    .addOption(new Option('--head <n:hash>', 'of an earlier verify, kept elsewhere: it must be in the trail').argParser(readKeptHead))
    .option('--json', 'as JSON')
    .action((_option: VerifyOptions, command: Command) => verify(command.optsWithGlobals<VerifyOptions>()));
}

async function list(option: ListOptions): Promise<void> {
  const { nodeDisk } = await import('../../host/node/disk.ts');
  const all: { readonly role: string; readonly entries: readonly AuditEntry[] }[] = [];
  for (const { role, options } of await chooseAny(option)) {
    const entries: AuditEntry[] = [];
    await readTrail(nodeDisk, auditFolder(options.dataFolder), (entry) => {
      entries.push(entry);
      if (entries.length > 2 * option.limit) entries.splice(0, entries.length - option.limit);
    });
    all.push({ role, entries: entries.slice(-option.limit) });
  }
  if (option.json === true) printJson(all);
  else for (const { role, entries } of all) print(`${all.length > 1 ? `${role}\n` : ''}${formatTrail(lookOf(process.stdout), entries)}`);
}

async function verify(option: VerifyOptions): Promise<void> {
  const folders = option.folder === undefined ? (await chooseAny(option)).map(({ options }) => auditFolder(options.dataFolder)) : [option.folder];
  const { nodeDisk } = await import('../../host/node/disk.ts');
  const readings = [];
  for (const folder of folders) readings.push({ folder, ...await readTrail(nodeDisk, folder, undefined, option.head ?? null) });
  if (option.json === true) printJson(readings);
  else for (const reading of readings) print(formatVerified(lookOf(process.stdout), reading.folder, reading));
  if (readings.some(({ broken }) => broken !== null)) process.exitCode = exitCodes.failed;
}

function readLimit(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > limitMax) throw new InvalidArgumentError(`Expected a whole number from 1 to ${limitMax}.`);
  return count;
}

function readKeptHead(text: string): AuditHead {
  const found = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (found === null) throw new InvalidArgumentError('Expected a number and a hash, as `audit verify` prints them: 12:9f86….');
  return { n: Number(found[1]), hash: found[2]! };
}
