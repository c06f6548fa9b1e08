/** A qemu-storage-daemon as a guest without a machine: disks as nodes, each exported over NBD for the load. Not a suite. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectQmp } from '../../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';

export interface Teardown { teardown(action: () => unknown): unknown }

export interface StandInDisk { readonly name: string; readonly node: string; readonly path: string; readonly format: 'raw' | 'qcow2'; readonly sizeBytes: number }

export interface StandIn {
  readonly folder: string;
  /** For the capture. */
  readonly qmpPath: string;
  /** For the test: a second monitor. */
  readonly qmp: QmpConnection;
  readonly nbdPath: string;
  readonly disks: readonly StandInDisk[];
  readonly child: ChildProcess;
  said(): string;
  /** Ends it cleanly, so that persistent bitmaps are saved. */
  quit(): Promise<void>;
  /** SIGKILL. */
  kill(): void;
  readonly over: Promise<void>;
}

/** No test needs one for longer, ms. */
const lifeMsMax = 120_000;

export function shortFolder(t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'aic-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function until<T>(what: string, condition: () => T | undefined | Promise<T | undefined>, limitMs = 20_000): Promise<T> {
  const endMs = Date.now() + limitMs;
  for (;;) {
    const found = await condition();
    if (found !== undefined) return found;
    if (Date.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}

export function makeDisks(folder: string, wanted: readonly { readonly sizeBytes: number; readonly format: 'raw' | 'qcow2' }[]): StandInDisk[] {
  return wanted.map(({ sizeBytes, format }, index) => {
    const path = join(folder, `disk${index}.${format}`);
    if (format === 'raw') {
      writeFileSync(path, '');
      truncateSync(path, sizeBytes);
    } else {
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
    }
    return { name: `d${index}`, node: `disk${index}`, path, format, sizeBytes };
  });
}

export async function startStandIn(t: Teardown, disks: readonly StandInDisk[], folder: string): Promise<StandIn> {
  const qmpPath = join(folder, 'qmp');
  const ownQmpPath = join(folder, 'own');
  const nbdPath = join(folder, 'nbd');
  for (const path of [qmpPath, ownQmpPath, nbdPath]) rmSync(path, { force: true });
  const args = [
    '--chardev', `socket,id=c0,path=${qmpPath},server=on,wait=off`, '--monitor', 'chardev=c0',
    '--chardev', `socket,id=c1,path=${ownQmpPath},server=on,wait=off`, '--monitor', 'chardev=c1',
    ...disks.flatMap(({ node, path, format }) => ['--blockdev', JSON.stringify({ driver: format, 'node-name': node, discard: 'unmap', file: { driver: 'file', filename: path, discard: 'unmap' } })]),
    '--nbd-server', `addr.type=unix,addr.path=${nbdPath},max-connections=0`,
    ...disks.flatMap(({ node, name }) => ['--export', `type=nbd,id=${name},node-name=${node},name=${name},writable=on`]),
  ];
  const child = spawn('qemu-storage-daemon', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes: Buffer) => { said += bytes.toString(); });
  let isWanted = false;
  const over = new Promise<void>((resolve) => {
    child.once('close', (code, signal) => {
      if (!isWanted) console.error(`# the storage daemon ended by itself: status ${code}, signal ${signal}: ${said}`);
      resolve();
    });
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), lifeMsMax);
  let qmp: QmpConnection | undefined;
  t.teardown(async () => {
    clearTimeout(timer);
    isWanted = true;
    qmp?.close();
    child.kill('SIGKILL');
    await over;
  });
  await until('the storage daemon makes its sockets', () => {
    if (child.exitCode !== null) throw new Error(`qemu-storage-daemon ended: ${said}`);
    return [qmpPath, ownQmpPath, nbdPath].every((path) => existsSync(path)) ? true : undefined;
  });
  qmp = await connectQmp(ownQmpPath);
  const own = qmp;
  return {
    folder, qmpPath, qmp: own, nbdPath, disks, child, said: () => said,
    kill: () => {
      isWanted = true;
      child.kill('SIGKILL');
    },
    over,
    quit: async () => {
      isWanted = true;
      await own.execute('quit');
      await over;
    },
  };
}
