/** A target as it is shipped, with a guest of two disks and some thirty points in its folder, and the model that says what each holds. */
import { once } from 'node:events';
import type { ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { TargetClient } from '../../console/control-client.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { isFault } from '../../journal/fault.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { BuiltCommand } from '../console/built-command.ts';
import { appendAll } from '../store/store-rig.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';
import { pattern } from '../qemu/nbd-peers.ts';
import { seededFractions } from '../support/seeded.ts';
import { waitFor } from '../support/wait.ts';

const MiB = 1024 * 1024;
export const pointCount = 30;

export class RealTarget {
  readonly folder: string;
  readonly guest: ModelGuest;
  readonly command: BuiltCommand;
  readonly client: TargetClient;
  readonly config: string;
  #child: ChildProcess | null = null;

  private constructor(folder: string, guest: ModelGuest, command: BuiltCommand) {
    this.folder = folder;
    this.guest = guest;
    this.command = command;
    this.config = join(folder, 'target.yaml');
    this.client = new TargetClient(join(folder, 'control'));
  }

  static async make(t: Test): Promise<RealTarget> {
    // Socket paths have to be short.
    const folder = await mkdtemp(join(tmpdir(), 'ai-pt-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const guest = await fill(join(folder, 'data'));
    const target = new RealTarget(folder, guest, await BuiltCommand.build(t));
    await writeFile(target.config, `role: target\nname: bravo\nlisten: { host: 127.0.0.1, port: 0 }\nadvertise: 127.0.0.1:1\ndata: ${join(folder, 'data')}\nkeepFree: 1MiB\ncontrol: ${target.client.path}\nlog: { level: debug }\n`);
    t.teardown(() => target.kill());
    await target.start();
    return target;
  }

  get socketPath(): string { return join(this.folder, 'data/points.sock'); }

  async start(): Promise<void> {
    const child = this.command.start(['target', 'run', '--config', this.config]);
    this.#child = child;
    let said = '';
    for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (text: Buffer) => { said = (said + text.toString()).slice(-4000); });
    await waitFor(async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the target ended: ${said}`);
      return this.client.report().then(() => true, (error: unknown) => { if (isFault(error)) return false; throw error; });
    }, { limitMs: 30_000, what: 'the target to answer' });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** The disk's bytes at a point, as a file. */
  async copy(point: PointId, disk: number): Promise<string> {
    const path = join(this.folder, `copy-${formatPoint(point)}-${disk}`);
    await writeFile(path, this.guest.at(point)[disk]!);
    return path;
  }
}

/** Most points are inside applied batches, so that views are made of replica, history and journal. */
async function fill(dataFolder: string): Promise<ModelGuest> {
  await mkdir(join(dataFolder, 'groups'), { recursive: true, mode: 0o700 });
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(dataFolder, 'groups'), options: { segmentBytes: 4 * MiB, journalKeepBytes: 8 * MiB, batchBytes: 2 * MiB } });
  // The second one ends on no boundary but its sectors.
  const guest = new ModelGuest([12 * MiB, 2 * MiB + 3 * 512]);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  const fraction = seededFractions(7);
  for (let point = 0; point < pointCount; point += 1) {
    for (let i = 0; i < 12; i += 1) {
      const disk = i % 4 === 3 ? 1 : 0;
      const sectors = Math.floor(guest.disks[disk]!.length / 512);
      const at = Math.floor(fraction() * (sectors - 128));
      const count = 1 + Math.floor(fraction() * 127);
      if (i % 5 === 4) guest.zero(disk, at * 512, count * 512);
      else guest.write(disk, at * 512, pattern(point * 65_536 + i * 4096, count * 512));
    }
    await appendAll(store, guest.cut());
  }
  await store.drain();
  await registry.close();
  return guest;
}
