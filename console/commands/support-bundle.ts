/** `support-bundle`: one file that says what this host is and how protection stands, without its secrets. */
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { choosePresent, type ConfigOption } from '../choose-config.ts';
import { thisHost } from '../doctor/binaries.ts';
import { runChecks } from '../doctor/check.ts';
import { print } from '../terminal.ts';
import { readVersion } from '../version.ts';
import { withConfig } from './with-config.ts';

interface BundleOptions extends ConfigOption { readonly to?: string }

export function addSupportBundleCommand(program: Command): void {
  withConfig(program.command('support-bundle').description('collect reports, config, versions, doctor and logs into one file, without secrets'))
    .option('--to <file>', 'a .tar.gz; default: in this folder, with the time in its name')
    .action(async (option: BundleOptions) => {
      const configs = await choosePresent(option);
      const at = new Date();
      const name = `afterimage-support-${at.toISOString().replaceAll(/[:.]/g, '-').slice(0, 19)}`;
      const to = resolve(option.to ?? `${name}.tar.gz`);
      const { planChecks } = await import('../doctor/checks-plan.ts');
      const { collectBundle } = await import('../support-bundle.ts');
      const doctor = await runChecks(planChecks({ host: thisHost, configs, targets: [], guests: [], isKvmTried: false }));
      process.umask(0o077);
      const work = await mkdtemp(join(tmpdir(), 'afterimage-support-'));
      try {
        const files = await collectBundle(join(work, name), { version: readVersion(), configs, doctor, atMs: at.getTime() });
        await promisify(execFile)('tar', ['-czf', to, '-C', work, name]);
        // It says much of a host, if nothing secret; a file that was there before keeps its mode.
        await chmod(to, 0o600);
        print(`${to}\n${files.map((file) => `  ${file}\n`).join('')}Look into it before you send it: names of guests, hosts and paths are in it, secrets are not.\n`);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    });
}
