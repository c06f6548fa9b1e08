/** Real NBD servers, and peers that are none, for the tests of this folder: time limit, ended by their own pid. Not a suite. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { isFault, type Fault, type FaultCode } from '../../journal/fault.ts';
import { connectNbd, type NbdClient, type NbdConnectOptions } from '../../qemu/nbd-client.ts';
import { listens, shortFolder, until } from './real-qemu.ts';

const lifeMsMax = 60_000;

export interface Ran { readonly code: number | null; readonly said: string }

/** Starts a program; it is killed by its pid at the end of the test, or of its time. */
export function start(t: Test, program: string, args: readonly string[]): { readonly child: ChildProcess; readonly over: Promise<Ran> } {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stdout.on('data', (bytes: Buffer) => { said += bytes.toString(); });
  child.stderr.on('data', (bytes: Buffer) => { said += bytes.toString(); });
  const over = new Promise<Ran>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, said }));
  });
  over.catch(() => undefined);
  const timer = setTimeout(() => child.kill('SIGKILL'), lifeMsMax);
  t.teardown(async () => {
    clearTimeout(timer);
    child.kill('SIGKILL');
    await over;
  });
  return { child, over };
}

export async function run(t: Test, program: string, args: readonly string[]): Promise<Ran> {
  return start(t, program, args).over;
}

/** Starts a server that makes the unix socket at the given path, and waits for it. */
export async function startServer(t: Test, program: string, args: (socketPath: string) => readonly string[]): Promise<string> {
  const path = join(shortFolder(t), 'nbd');
  const { child, over } = start(t, program, args(path));
  await until(`${program} makes its socket`, async () => {
    if (child.exitCode !== null) throw new Error(`${program} ended: ${(await over).said}`);
    return listens(path) ? true : undefined;
  });
  return path;
}

export function startNbdkit(t: Test, ...args: readonly string[]): Promise<string> {
  return startServer(t, 'nbdkit', (path) => ['-f', '-v', '-U', path, ...args]);
}

/** A peer that does what a test wants with each connection. */
export async function startPeer(t: Test, serve: (socket: Socket) => void): Promise<string> {
  const path = join(shortFolder(t), 'peer');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    serve(socket);
  });
  await new Promise<void>((resolve) => { server.listen(path, resolve); });
  t.teardown(() => new Promise<void>((resolve) => {
    for (const socket of sockets) socket.destroy();
    server.close(() => resolve());
  }));
  return path;
}

export async function connectTo(t: Test, path: string, options: Partial<NbdConnectOptions> = {}): Promise<NbdClient> {
  const client = await connectNbd({ path, exportName: '', ...options });
  t.teardown(() => client.close());
  return client;
}

export async function refused(t: Test, promise: Promise<unknown>, code: FaultCode): Promise<Fault> {
  try {
    await promise;
  } catch (error) {
    if (!isFault(error)) throw error;
    t.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`no ${code}`);
}

/** Bytes that tell where they belong: each 8 bytes come from their own offset, and are never zero. */
export function pattern(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 8 <= length; at += 8) {
    const word = (offset + at) / 8;
    bytes.writeUInt32LE(Math.imul(word, 0x9e3779b1) >>> 0, at);
    bytes.writeUInt32LE((word ^ 0xa5a5a5a5) >>> 0, at + 4);
  }
  return bytes;
}
