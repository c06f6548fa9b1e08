/**
 * A QMP proxy that stands between the capture and QEMU. To the capture's cut it adds, in the same transaction, a backup of each
 * whole disk into a file of the test's: the content at the cut, as QEMU itself sees it. Everything else passes unchanged.
 * It can also end the connection just before or just after the k-th command of a name: the daemon's death at that moment.
 * Not a suite.
 */
import { createServer, connect, type Server, type Socket } from 'node:net';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import { until, type Teardown } from './storage-daemon.ts';

export interface WholeDisk { readonly node: string; readonly sizeBytes: number }

export interface Command { execute?: string; id?: number; arguments?: { [name: string]: unknown; actions?: { type: string; data: Record<string, unknown> }[] } }

export class WholeProxy {
  readonly path: string;
  /** Commands that the capture sent, in order. */
  readonly seen: string[] = [];
  /** Called with each command, which it may alter; `die` ends the connection instead of passing it on, `dieAfter` once it was answered. */
  onCommand: (command: Command) => 'pass' | 'die' | 'dieAfter' = () => 'pass';
  /** Called with each line to the capture, which it may replace. */
  onAnswer: (line: string) => string = (line) => line;
  readonly #qmp: QmpConnection;
  readonly #folder: string;
  #armed: readonly { readonly disk: WholeDisk; readonly path: string; readonly stamp: string }[] = [];
  #count = 0;
  #server: Server | null = null;

  private constructor(folder: string, qmp: QmpConnection) {
    this.#folder = folder;
    this.#qmp = qmp;
    this.path = join(folder, `proxy-${Math.random().toString(36).slice(2, 8)}`);
  }

  /** `ownQmp`: the test's own connection, for making and removing the nodes. */
  static async start(t: Teardown, folder: string, qmpPath: string, ownQmp: QmpConnection): Promise<WholeProxy> {
    const proxy = new WholeProxy(folder, ownQmp);
    const sockets = new Set<Socket>();
    proxy.#server = createServer((client) => proxy.#serve(client, qmpPath, sockets));
    await new Promise<void>((resolve) => { proxy.#server!.listen(proxy.path, resolve); });
    t.teardown(() => {
      for (const socket of sockets) socket.destroy();
      proxy.#server!.close();
    });
    return proxy;
  }

  /** The next cut also copies these disks whole. Call {@link collect} when it is done. */
  async arm(disks: readonly WholeDisk[]): Promise<void> {
    this.#count += 1;
    const armed = disks.map((disk, index) => ({ disk, path: join(this.#folder, `whole-${this.#count}-${index}`), stamp: `${this.#count}-${index}` }));
    for (const { disk, path, stamp } of armed) {
      writeFileSync(path, '');
      truncateSync(path, disk.sizeBytes);
      await this.#qmp.execute('blockdev-add', { driver: 'raw', 'node-name': `whole-${stamp}`, file: { driver: 'file', filename: path } });
    }
    this.#armed = armed;
  }

  /** The files with the whole disks, once QEMU has written them. */
  async collect(): Promise<string[]> {
    const armed = this.#armed;
    this.#armed = [];
    // Not by themselves: QEMU 7.2 dies when two filters on one disk go at the same moment (see dirty-copy.ts).
    for (const { stamp } of armed) {
      await until('the whole backup has copied', async () => {
        const jobs = await this.#qmp.execute<{ id: string; status: string }[]>('query-jobs');
        const status = jobs.find(({ id }) => id === `whole-${stamp}`)?.status;
        if (status === 'pending') await this.#qmp.execute('job-finalize', { id: `whole-${stamp}` });
        return status === undefined ? true : undefined;
      });
    }
    for (const { stamp } of armed) await this.#qmp.execute('blockdev-del', { 'node-name': `whole-${stamp}` });
    return armed.map(({ path }) => path);
  }

  #serve(client: Socket, qmpPath: string, sockets: Set<Socket>): void {
    const server = connect(qmpPath);
    const both = [client, server];
    let dieAfterId: number | undefined;
    for (const socket of both) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => { for (const one of both) { one.destroy(); sockets.delete(one); } });
    }
    const lines = both.map((input) => createInterface({ input }).on('error', () => undefined));
    lines[1]!.on('line', (line) => {
      if (dieAfterId !== undefined && (JSON.parse(line) as { id?: number }).id === dieAfterId) client.destroy();
      else client.write(`${this.onAnswer(line)}\n`);
    });
    lines[0]!.on('line', (line) => {
      const command = JSON.parse(line) as Command;
      const name = command.execute ?? '';
      this.seen.push(name);
      const fate = this.onCommand(command);
      if (fate === 'die') return client.destroy();
      if (fate === 'dieAfter') dieAfterId = command.id;
      const actions = command.arguments?.actions;
      if (name === 'transaction' && actions?.some(({ type, data }) => type === 'block-dirty-bitmap-add' && String(data['name']).endsWith('-cut'))) {
        for (const { disk, stamp } of this.#armed) {
          actions.push({ type: 'blockdev-backup', data: { 'job-id': `whole-${stamp}`, device: disk.node, target: `whole-${stamp}`, sync: 'full', 'filter-node-name': `wholef-${stamp}`, 'auto-finalize': false, 'auto-dismiss': true } });
        }
      }
      server.write(`${JSON.stringify(command)}\n`);
    });
  }
}
