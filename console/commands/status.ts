/** `status`: the report of the daemon that the config names, once or over and over, as a page or as JSON. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { SourceReport } from '../../daemon/report.ts';
import { Fault } from '../../journal/fault.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import type { ApiPlace } from '../api-call.ts';
import { chooseAny } from '../choose-config.ts';
import { ControlClient } from '../control-client.ts';
import { UsageError } from '../exit-code.ts';
import { remotePlace, type DaemonOption } from '../open-client.ts';
import { formatFault } from '../render/fault.ts';
import type { Look } from '../render/look.ts';
import type { PassSample } from '../render/pass-line.ts';
import { formatSourceStatus } from '../render/source-status.ts';
import { formatTargetStatus } from '../render/target-status.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

/** Pace of --watch, ms. */
const watchMs = 1000;
/** Over how many reports the rate of a pass is taken. */
const historyCount = 10;

type Report = SourceReport | TargetReport;
interface StatusOptions extends DaemonOption { readonly json?: true; readonly watch?: true }

export function addStatusCommand(program: Command): void {
  withDaemon(program.command('status').description('how protection stands').argument('[guest]', 'only this one', readName))
    .option('--json', 'the report as JSON (one line when it does not go to a terminal)')
    .option('--watch', 'again every second')
    .action(status);
}

async function status(guest: string | undefined, option: StatusOptions): Promise<void> {
  const remote = await remotePlace(option);
  const places = remote !== null ? [remote] : (await chooseAny(option)).map(({ controlPath }) => controlPath);
  if (option.json === true && places.length > 1) throw new UsageError('this host plays both roles: name one with --config for --json');
  const page = new StatusPage(guest);
  if (option.watch === true) return watch(places, page, option.json === true);
  for (const place of places) {
    const report = page.only(await ask(place));
    if (option.json === true) printJson(report);
    else print(page.format(lookOf(process.stdout), report));
  }
}

/** Until the process is told to end. A daemon that is away for a while does not end it. */
async function watch(places: readonly ApiPlace[], page: StatusPage, isJson: boolean): Promise<never> {
  const isScreen = process.stdout.isTTY && !isJson;
  for (;;) {
    const texts: string[] = [];
    for (const place of places) {
      try {
        const report = page.only(await ask(place));
        texts.push(isJson ? `${JSON.stringify(report)}\n` : page.format(lookOf(process.stdout), report));
      } catch (error) {
        if (!(error instanceof Fault) || error.code !== 'DAEMON_UNREACHABLE') throw error;
        texts.push(isJson ? `${JSON.stringify({ error: { code: error.code, message: error.message } })}\n` : formatFault(lookOf(process.stdout), error));
      }
    }
    const text = texts.join('\n');
    // Each line is cleared to its end as it is written over, and what is left below at last: nothing flickers.
    print(isScreen ? `\u001b[H${text.replaceAll('\n', '\u001b[K\n')}\u001b[J` : isJson ? text : `${text}\n`);
    await delay(watchMs);
  }
}

/** A report says whose it is. */
function ask(place: ApiPlace): Promise<Report> {
  return new ControlClient(place).anyReport();
}

/** What is shown of reports, and what earlier ones tell about rates. */
class StatusPage {
  readonly #guest: string | undefined;
  readonly #samples = new Map<string, PassSample[]>();

  constructor(guest: string | undefined) {
    this.#guest = guest;
  }

  /** The report with the guest that was asked for alone. Fault GROUP_UNKNOWN. */
  only(report: Report): Report {
    const name = this.#guest;
    if (name === undefined) return report;
    const found = report.role === 'source'
      ? { ...report, guests: report.guests.filter((guest) => guest.name === name || guest.groupId === name) }
      : { ...report, groups: report.groups.filter((group) => group.name === name || group.groupId === name), failovers: report.failovers.filter(({ group }) => group === name), tests: report.tests.filter(({ group }) => group === name), endedTests: report.endedTests.filter(({ group }) => group === name) };
    const count = found.role === 'source' ? found.guests.length : found.groups.length;
    if (count === 0) throw new Fault('GROUP_UNKNOWN', `nothing named ${name} is known to this ${report.role}`, { group: name });
    return found;
  }

  format(look: Look, report: Report): string {
    if (report.role === 'target') return formatTargetStatus(look, report);
    const text = formatSourceStatus(look, report, new Map([...this.#samples].flatMap(([name, samples]) => (samples[0] === undefined ? [] : [[name, samples[0]]]))));
    for (const { name, pass } of report.guests) {
      const samples = pass === null || pass.isPaused ? [] : [...this.#samples.get(name) ?? [], { atMs: report.atMs, doneBytes: pass.doneBytes }].slice(-historyCount);
      this.#samples.set(name, samples);
    }
    return text;
  }
}
