/** Real QEMU processes for the tests of this folder: started directly, with a time limit, ended by their own pid. Not a suite. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';

interface Teardown { teardown(action: () => unknown): unknown }

export interface Running { readonly child: ChildProcess; readonly qmpPath: string; readonly folder: string; readonly said: () => string }

/** No test needs a QEMU for longer, ms. */
const lifeMsMax = 60_000;

/** A short folder: the path of a unix socket has at most 107 bytes. */
export function shortFolder(t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'aiq-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Whether somebody listens at a unix socket. Its file alone says less: it exists from `bind` on, `listen` comes after. Linux, net/unix/af_unix.c: flag __SO_ACCEPTCON. */
export function listens(path: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8').split('\n').some((line) => line.endsWith(` ${path}`) && line.split(/\s+/)[3] === '00010000');
}

/** Waits until `condition` gives something else than undefined. */
export async function until<T>(what: string, condition: () => T | undefined | Promise<T | undefined>, limitMs = 20_000): Promise<T> {
  const endMs = Date.now() + limitMs;
  for (;;) {
    const found = await condition();
    if (found !== undefined) return found;
    if (Date.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

/** Starts a program that makes a QMP socket; `args` gets the socket's path. */
export async function startRunning(t: Teardown, program: string, args: (qmpPath: string, folder: string) => readonly string[], folder = shortFolder(t)): Promise<Running> {
  const qmpPath = join(folder, 'qmp');
  const child = spawn(program, args(qmpPath, folder), { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr!.on('data', (bytes: Buffer) => { said += bytes.toString(); });
  const over = new Promise<void>((resolve) => { child.once('close', () => resolve()); });
  const timer = setTimeout(() => child.kill('SIGKILL'), lifeMsMax);
  t.teardown(async () => {
    clearTimeout(timer);
    child.kill('SIGKILL');
    await over;
  });
  await until(`${program} makes its QMP socket`, () => {
    if (child.exitCode !== null) throw new Error(`${program} ended: ${said}`);
    return listens(qmpPath) ? true : undefined;
  });
  return { child, qmpPath, folder, said: () => said };
}

export function startQemu(t: Teardown, args: readonly string[] = ['-machine', 'none'], folder = shortFolder(t)): Promise<Running> {
  return startRunning(t, 'qemu-system-x86_64', (qmpPath) => [
    '-accel', 'tcg', '-nodefaults', '-display', 'none', '-qmp', `unix:${qmpPath},server=on,wait=off`, ...args,
  ], folder);
}

export function startStorageDaemon(t: Teardown, args: readonly string[] = [], folder = shortFolder(t)): Promise<Running> {
  return startRunning(t, 'qemu-storage-daemon', (qmpPath) => [
    '--chardev', `socket,id=qmp,path=${qmpPath},server=on,wait=off`, '--monitor', 'chardev=qmp', ...args,
  ], folder);
}

export async function connect(t: Teardown, running: Running): Promise<QmpConnection> {
  const qmp = await connectQmp(running.qmpPath, { connectTimeoutMs: 20_000 }).catch((error: unknown) => {
    throw new Error(`no QMP from ${running.child.spawnfile}, which said: ${running.said()}`, { cause: error });
  });
  t.teardown(() => qmp.close());
  return qmp;
}
