/**
 * `doctor`: checks this host, with a config or without one; with `--failover`, asks the target that runs here whether a group's
 * guest could start. Exit code 1 when something would not work.
 */
import type { Command } from 'commander';
import { isFault } from '../../journal/fault.ts';
import { choosePresent, chooseTarget, type ConfigOption } from '../choose-config.ts';
import type { Config } from '../config/config.ts';
import { SourceClient, TargetClient } from '../control-client.ts';
import { thisHost } from '../doctor/binaries.ts';
import { fail, runChecks, type Check } from '../doctor/check.ts';
import type { DoctorQuestion } from '../doctor/checks-plan.ts';
import { exitCodes, UsageError } from '../exit-code.ts';
import { formatDoctor } from '../render/doctor.ts';
import { formatStartReport } from '../render/start-check.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { readName, readPlaceOption } from './guests.ts';
import { withConfig } from './with-config.ts';

interface DoctorOptions extends ConfigOption { readonly qmp?: readonly string[]; readonly json?: true; readonly tryKvm?: true; readonly failover?: string }

export function addDoctorCommand(program: Command): void {
  withConfig(program.command('doctor').description('check this host: QEMU, permissions, space, clock, ports'))
    .option('--qmp <path...>', 'look at the guests behind these QMP sockets as well (or libvirt://DOMAIN, pve://VMID)')
    .option('--try-kvm', 'start a firmware under KVM for a moment')
    .option('--failover <guest>', 'could it start here? (at the target, which must run)', readName)
    .option('--json', 'as JSON')
    .action(doctor);
}

async function doctor(option: DoctorOptions): Promise<void> {
  if (option.failover !== undefined) return doctorFailover(option, option.failover);
  const configs = await choosePresent(option);
  const { targets, failed } = await pairedTargets(configs);
  const holders = await heldGuests(configs);
  // Here and below: what most commands have no use for is loaded where it is used, as it takes longer than they do.
  const { planChecks } = await import('../doctor/checks-plan.ts');
  const report = await runChecks([
    ...planChecks({
      host: thisHost, configs, targets, isKvmTried: option.tryKvm === true,
      guests: (option.qmp ?? []).map(readPlaceOption).map((qmpPath) => ({ qmpPath, holder: holders.get(qmpPath) ?? null })),
    }),
    ...failed,
  ]);
  if (option.json === true) printJson(report);
  else print(formatDoctor(lookOf(process.stdout), report));
  if (report.verdict === 'fail') process.exitCode = exitCodes.failed;
}

async function doctorFailover(option: DoctorOptions, group: string): Promise<void> {
  if (option.qmp !== undefined || option.tryKvm === true) throw new UsageError('--failover looks at one guest’s start alone: it takes neither --qmp nor --try-kvm');
  const report = await new TargetClient((await chooseTarget(option, 'doctor --failover')).controlPath).checkStart({ group });
  if (option.json === true) printJson(report);
  else print(formatStartReport(lookOf(process.stdout), report));
  if (report.verdict === 'refused') process.exitCode = exitCodes.failed;
}

async function pairedTargets(configs: readonly Config[]): Promise<{ targets: DoctorQuestion['targets']; failed: Check[] }> {
  const source = configs.find(({ role }) => role === 'source');
  if (source === undefined) return { targets: [], failed: [] };
  try {
    const { SourceState } = await import('../../daemon/source-state.ts');
    return { targets: await new SourceState(source.options.dataFolder).targets(), failed: [] };
  } catch (error) {
    // The source has never run.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { targets: [], failed: [] };
    const why = error instanceof Error ? error.message : String(error);
    return { targets: [], failed: [{ name: 'pairings', run: async () => fail(`the pairings cannot be read: ${why}`, 'See the permissions of the data folder; run as the daemon’s user.') }] };
  }
}

/** Which guests a running source of this host is connected to. */
async function heldGuests(configs: readonly Config[]): Promise<ReadonlyMap<string, string>> {
  const source = configs.find(({ role }) => role === 'source');
  if (source === undefined) return new Map();
  try {
    return new Map((await new SourceClient(source.controlPath).report()).guests.map(({ qmpPath, name }) => [qmpPath, name]));
  } catch (error) {
    if (isFault(error, 'DAEMON_UNREACHABLE')) return new Map();
    throw error;
  }
}
