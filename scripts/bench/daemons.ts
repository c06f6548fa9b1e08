/** A real source and a real target, as an operator starts them: the built command, config files, control sockets. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import { isFault } from '../../journal/fault.ts';
import { TargetState } from '../../replica-target/target-state.ts';
import { projectRoot } from '../lab/lab-guest.ts';
import { until, type Running, type Site } from './site.ts';

const program = join(projectRoot(), 'dist', 'console', 'main.js');

export interface Daemon<Client> { readonly client: Client; readonly running: Running }

export interface DaemonOptions {
  /** For a CPU profile, written when the daemon has ended by itself (`endDaemon`). */
  readonly profileFolder?: string | null;
}

export async function startTarget(site: Site, options: DaemonOptions = {}): Promise<Daemon<TargetClient> & { readonly groupsFolder: string }> {
  const dataFolder = site.freshPath('target');
  const control = site.freshPath('t');
  const config = `${dataFolder}.yaml`;
  await writeFile(config, `role: target
name: bravo
listen: { host: 127.0.0.1, port: 0 }
advertise: 127.0.0.1
data: ${dataFolder}
keepFree: 64MiB
control: ${control}
log: { level: warn }
failover: { accel: tcg, network: none }
`);
  const client = new TargetClient(control);
  return { client, running: await startRole(site, 'target', config, () => client.report(), options), groupsFolder: new TargetState(dataFolder).groupsFolder };
}

/** Paired with the target of `token`. */
export async function startSource(site: Site, token: string, options: DaemonOptions = {}): Promise<Daemon<SourceClient>> {
  const dataFolder = site.freshPath('source');
  const control = site.freshPath('s');
  const config = `${dataFolder}.yaml`;
  await writeFile(config, `role: source
name: alpha
data: ${dataFolder}
spool: { folder: ${site.freshPath('spool')}, budget: 4GiB, keepFree: 64MiB }
control: ${control}
log: { level: warn }
`);
  const client = new SourceClient(control);
  const running = await startRole(site, 'source', config, () => client.report(), options);
  await client.pair(token);
  return { client, running };
}

/** Asks it to end, as the service manager does. */
export async function endDaemon({ running }: { readonly running: Running }): Promise<void> {
  await running.end('SIGTERM');
}

/** Resolves when the guest has its first point. */
export async function untilProtected(source: Daemon<SourceClient>, name: string): Promise<void> {
  await until(`${name} is protected`, async () => (await source.client.report()).guests.find((one) => one.name === name)?.phase === 'protected', {
    running: source.running, limitMs: 300_000, everyMs: 50,
  });
}

async function startRole(site: Site, role: 'source' | 'target', config: string, isUp: () => Promise<unknown>, { profileFolder = null }: DaemonOptions): Promise<Running> {
  const profiling = profileFolder === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileFolder}`, `--cpu-prof-name=${role}.cpuprofile`];
  const running = site.spawn(process.execPath, [...profiling, program, role, 'run', '--config', config], { name: role });
  await until(`the ${role} answers`, () => isUp().then(() => true, (error: unknown) => { if (isFault(error, 'DAEMON_UNREACHABLE')) return false; throw error; }), { running });
  return running;
}
