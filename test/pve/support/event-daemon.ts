/**
 * Stands in for Proxmox VE's event daemon (qmeventd of qemu-server 9.2.6): QEMUs connect to it with a monitor; one whose guest is off is told to quit, unless somebody has said that the
 * guest is being backed up, and then as soon as that one is gone.
 * Where a real one is at hand (as root), QMEVENTD in the environment names it, and it is taken.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { LineSplitter } from '../../../qemu/line-splitter.ts';
import { waitFor } from '../../support/wait.ts';

const activeStates = new Set(['running', 'paused', 'suspended', 'prelaunch']);

export interface EventDaemon { /** Guests that are held, by number; what a real one holds it does not say. */ readonly held: ReadonlySet<string> }

/** `vmid`: of the only guest. */
export async function startEventDaemon(t: { teardown(end: () => unknown): unknown }, root: string, vmid: number): Promise<EventDaemon> {
  const real = process.env['QMEVENTD'];
  if (real !== undefined) {
    const path = join(root, 'var/run/qmeventd.sock');
    const child = spawn(real, ['-f', path], { stdio: 'ignore' });
    t.teardown(async () => {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    });
    await waitFor(() => stat(path).then(() => true, () => false), { limitMs: 10_000, what: 'the event daemon to listen' });
    return { held: new Set() };
  }
  const held = new Set<string>();
  const sockets = new Set<Socket>();
  let monitor: Socket | null = null;
  const check = (): void => { monitor?.write('{"execute":"query-status","id":"check"}\n'); };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    let holds: string | null = null;
    const take = (message: Record<string, unknown>): void => {
      const { QMP, event, vzdump, id, return: answer } = message as { QMP?: unknown; event?: string; vzdump?: { vmid: string }; id?: string; return?: { status?: string } };
      if (QMP !== undefined) {
        monitor = socket;
        socket.write('{"execute":"qmp_capabilities"}\n');
      } else if (vzdump !== undefined && vzdump.vmid === String(vmid)) {
        holds = vzdump.vmid;
        held.add(holds);
      } else if (event === 'SHUTDOWN') check();
      else if (id === 'check' && !activeStates.has(answer?.status ?? '') && held.size === 0) socket.write('{"execute":"quit"}\n');
    };
    const splitter = new LineSplitter(1024 * 1024);
    let first = true;
    socket.on('data', (chunk: Buffer) => {
      // A backup's word has no end of line.
      if (first && chunk.toString().startsWith('{"vzdump"')) take(JSON.parse(chunk.toString()) as Record<string, unknown>);
      else splitter.push(chunk, (line) => { take(JSON.parse(line) as Record<string, unknown>); return true; });
      first = false;
    });
    socket.on('close', () => {
      sockets.delete(socket);
      if (monitor === socket) monitor = null;
      if (holds === null) return;
      held.delete(holds);
      check();
    });
  });
  t.teardown(() => { for (const socket of sockets) socket.destroy(); server.close(); });
  await new Promise<void>((resolve) => server.listen(join(root, 'var/run/qmeventd.sock'), resolve));
  return { held };
}
