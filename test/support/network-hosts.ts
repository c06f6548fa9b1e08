/**
 * Two hosts with addresses of their own: network namespaces that the test itself makes, joined by a cable that it can pull. They go with the test; nothing outside them is touched.
 * Needs root and iproute2; where either is missing the reason is said, and the test is skipped.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Teardown } from './daemons.ts';

const run = promisify(execFile);

export interface NetworkHost {
  readonly address: string;
  /** What stands before a command that is to run on it. It replaces itself by the command, so that the pid is the command's. */
  readonly prefix: readonly string[];
}

export interface NetworkHosts {
  readonly alpha: NetworkHost;
  readonly bravo: NetworkHost;
  /** As if the cable were pulled: nobody is told. */
  pull(): Promise<void>;
  plug(): Promise<void>;
}

/** Why there can be none here; null: there can. */
export async function whyNoNetworkHosts(): Promise<string | null> {
  if (process.geteuid?.() !== 0) return 'network namespaces need root';
  try {
    await run('ip', ['netns', 'list']);
    return null;
  } catch (error) {
    return `network namespaces need iproute2: ${(error as Error).message.split('\n')[0] ?? ''}`;
  }
}

export async function makeNetworkHosts(t: Teardown): Promise<NetworkHosts> {
  const unique = `${process.pid.toString(36)}${Math.floor(Math.random() * 36 ** 3).toString(36)}`;
  const names = { alpha: `af-${unique}-a`, bravo: `af-${unique}-b` } as const;
  const cable = { alpha: 'cable-a', bravo: 'cable-b' } as const;
  // Seen from nowhere else, so any private address will do.
  const address = { alpha: '10.77.0.1', bravo: '10.77.0.2' } as const;
  t.teardown(async () => { for (const name of Object.values(names)) await run('ip', ['netns', 'del', name]).catch(() => undefined); });
  for (const name of Object.values(names)) await run('ip', ['netns', 'add', name]);
  await run('ip', ['-n', names.alpha, 'link', 'add', cable.alpha, 'type', 'veth', 'peer', 'name', cable.bravo, 'netns', names.bravo]);
  for (const host of ['alpha', 'bravo'] as const) {
    await run('ip', ['-n', names[host], 'addr', 'add', `${address[host]}/30`, 'dev', cable[host]]);
    for (const link of ['lo', cable[host]]) await run('ip', ['-n', names[host], 'link', 'set', link, 'up']);
  }
  const set = async (state: 'up' | 'down'): Promise<void> => { await run('ip', ['-n', names.alpha, 'link', 'set', cable.alpha, state]); };
  const hostOf = (host: 'alpha' | 'bravo'): NetworkHost => ({ address: address[host], prefix: ['ip', 'netns', 'exec', names[host]] });
  return { alpha: hostOf('alpha'), bravo: hostOf('bravo'), pull: () => set('down'), plug: () => set('up') };
}
