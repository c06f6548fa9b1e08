/** A real etcd of one member on loopback, in a temporary folder, ended by its own pid with the test. It can be frozen: reachable for nobody, and with all that it knew afterwards. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import { isFault } from '../../journal/fault.ts';
import { freePort } from '../../scripts/lab/free-port.ts';
import type { Teardown } from './daemons.ts';
import { waitFor } from './wait.ts';

export interface Etcd {
  readonly endpoint: string;
  freeze(): void;
  thaw(): void;
}

/** `args`: more for its command line. `ask`: what else than a plain client it takes to reach it. */
export async function startEtcd(t: Teardown, args: readonly string[] = [], ask: { readonly scheme?: 'https'; readonly caPath?: string; readonly certPath?: string; readonly keyPath?: string } = {}): Promise<Etcd> {
  const folder = await mkdtemp(join(tmpdir(), 'af-etcd-'));
  const [client, peer] = [await freePort(), await freePort()];
  const endpoint = `${ask.scheme ?? 'http'}://127.0.0.1:${client}`;
  const peerUrl = `http://127.0.0.1:${peer}`;
  const child = spawn('etcd', [
    '--name', 'one', '--data-dir', folder, '--listen-client-urls', endpoint, '--advertise-client-urls', endpoint, '--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl,
    '--initial-cluster', `one=${peerUrl}`, '--log-level', 'error', '--unsafe-no-fsync', ...args,
  ], { stdio: 'ignore', env: { PATH: process.env['PATH'] }, timeout: 600_000, killSignal: 'SIGKILL' });
  const ended = once(child, 'exit');
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  const { scheme: _, ...files } = ask;
  const witness = await etcdWitness({ endpoints: [endpoint], prefix: '/', answerMsMax: 1000, ...files });
  await waitFor(async () => {
    if (child.exitCode !== null) throw new Error(`etcd ended with ${child.exitCode}`);
    return witness.grant(60_000).then(() => true, (error: unknown) => { if (isFault(error)) return false; throw error; });
  }, { limitMs: 20_000, what: 'etcd to answer' });
  witness.close();
  return { endpoint, freeze: () => stopProcess(child.pid!), thaw: () => { child.kill('SIGCONT'); } };
}

/** The signal is only on its way when `kill` returns, and what is asked meanwhile would be answered. */
function stopProcess(pid: number): void {
  process.kill(pid, 'SIGSTOP');
  for (const endMs = performance.now() + 5_000; !/\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));) if (performance.now() > endMs) throw new Error(`process ${pid} does not stop`);
}
