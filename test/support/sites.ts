/**
 * Two hosts, each with both roles, as they are set up for failover and failback: alpha's guests are protected to bravo, and bravo could protect them
 * back. All four daemons are real processes on loopback; whatever they started is ended with the test.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import type { GuestReport } from '../../daemon/report.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { Daemon, endGuestsOf, type Teardown } from './daemons.ts';
import type { NetworkHost, NetworkHosts } from './network-hosts.ts';
import { waitFor } from './wait.ts';

export interface Site {
  readonly folder: string;
  readonly source: Daemon<SourceClient>;
  readonly target: Daemon<TargetClient>;
  guest(name: string): Promise<GuestReport>;
  group(name: string): Promise<GroupStoreReport>;
  /** Waits until its source has a newer acknowledged point. */
  newPoint(name: string, limitMs?: number): Promise<GuestReport>;
}

/** More lines for the configs of both sites. */
export interface MoreConfig { readonly sourceConfig?: string; readonly targetConfig?: string; /** And for the target of one of them. */ readonly targetConfigOf?: (name: 'alpha' | 'bravo') => string; /** More keys of its `failover`, each after a comma. */ readonly failoverOf?: (name: 'alpha' | 'bravo') => string }

export interface Sites { readonly alpha: Site; readonly bravo: Site }

/** `hosts`: each on its own; absent: both on loopback. Both run; alpha's source is paired with bravo's target, and bravo's source with alpha's. */
export async function startSites(t: Teardown, hosts: NetworkHosts | null = null, more: MoreConfig = {}): Promise<Sites> {
  const folder = await mkdtemp(join(tmpdir(), 'af-e2e-'));
  const sites = { alpha: await makeSite(folder, 'alpha', hosts?.alpha ?? null, more), bravo: await makeSite(folder, 'bravo', hosts?.bravo ?? null, more) };
  const daemons = [sites.alpha, sites.bravo].flatMap(({ source, target }) => [source, target]);
  t.teardown(async () => {
    for (const daemon of daemons) await daemon.kill();
    await endGuestsOf(folder);
    if (t.passing?.() === false) for (const daemon of daemons) t.comment?.((await daemon.log()).split('\n').slice(-30).join('\n'));
    await rm(folder, { recursive: true, force: true });
  });
  for (const name of ['alpha', 'bravo'] as const) {
    const { source, target } = sites[name];
    await target.start();
    // A restarted target must be found where the token said: the port it got is fixed from here on.
    const { address } = await target.client.report();
    const config = await readFile(target.configPath, 'utf8');
    await writeFile(target.configPath, `${config.replace('port: 0', `port: ${address.slice(address.lastIndexOf(':') + 1)}`)}advertise: ${address.replace(/^.*:/, `${hosts?.[name].address ?? '127.0.0.1'}:`)}\n`);
    await target.kill('SIGTERM');
    await target.start();
    await source.start();
  }
  await sites.alpha.source.client.pair((await sites.bravo.target.client.invite()).token);
  await sites.bravo.source.client.pair((await sites.alpha.target.client.invite()).token);
  return sites;
}

async function makeSite(parent: string, name: 'alpha' | 'bravo', host: NetworkHost | null, more: MoreConfig): Promise<Site> {
  const folder = await mkdtemp(join(parent, `${name}-`));
  const sockets = { source: join(folder, 's.sock'), target: join(folder, 't.sock') };
  await writeFile(join(folder, 'source.yaml'), `role: source
name: ${name}
data: ${join(folder, 'source')}
spool: { folder: ${join(folder, 'spool')}, budget: 1GiB, keepFree: 1MiB }
control: ${sockets.source}
log: { level: debug }
${more.sourceConfig ?? ''}`);
  await writeFile(join(folder, 'target.yaml'), `role: target
name: ${name}
listen: { host: ${host?.address ?? '127.0.0.1'}, port: 0 }
data: ${join(folder, 'target')}
keepFree: 1MiB
control: ${sockets.target}
log: { level: debug }
failover: { accel: tcg, network: none, source: ${sockets.source}${more.failoverOf?.(name) ?? ''} }
${more.targetConfig ?? ''}${more.targetConfigOf?.(name) ?? ''}`);
  const sourceClient = new SourceClient(sockets.source);
  const targetClient = new TargetClient(sockets.target);
  const guest = async (guestName: string): Promise<GuestReport> => {
    const found = (await sourceClient.report()).guests.find((one) => one.name === guestName);
    if (found === undefined) throw new Error(`no guest ${guestName} at ${name}`);
    return found;
  };
  return {
    folder, guest,
    source: new Daemon('source', folder, join(folder, 'source.yaml'), sourceClient, () => sourceClient.report(), host?.prefix),
    target: new Daemon('target', folder, join(folder, 'target.yaml'), targetClient, () => targetClient.report(), host?.prefix),
    group: async (groupName) => {
      const found = (await targetClient.report()).groups.find((one) => one.name === groupName);
      if (found === undefined) throw new Error(`no group ${groupName} at ${name}`);
      return found;
    },
    newPoint: async (guestName, limitMs = 60_000) => {
      const from = (await guest(guestName)).newestPoint;
      await waitFor(async () => {
        const { newestPoint } = await guest(guestName);
        return newestPoint !== null && (from === null || newestPoint.term > from.term || newestPoint.point > from.point);
      }, { limitMs, what: `a new point of ${guestName} at ${name}` });
      return guest(guestName);
    },
  };
}
