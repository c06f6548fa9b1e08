/** A stand-in guest of two small disks whose content is written by hand, so that what a replica must hold is known. Not a suite. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { makeDisks, startStandIn, type StandIn } from '../capture/support/storage-daemon.ts';
import type { Pair } from '../support/daemons.ts';
import { imageDifference } from '../support/guest-look.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
export const diskBytes = 2 * 1024 ** 2;

export class StandInGuest {
  readonly standIn: StandIn;
  readonly name = 'web1';

  private constructor(standIn: StandIn) {
    this.standIn = standIn;
  }

  static async start(t: { teardown(after: () => unknown): unknown }): Promise<StandInGuest> {
    const folder = mkdtempSync(join(tmpdir(), 'aic-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const guest = new StandInGuest(await startStandIn(t, makeDisks(folder, [{ sizeBytes: diskBytes, format: 'raw' }, { sizeBytes: diskBytes, format: 'qcow2' }]), folder));
    await guest.write(0, 0, 1);
    await guest.write(1, 512 * 1024, 2);
    return guest;
  }

  /** 64 KiB of one byte. */
  async write(disk: number, offset: number, byte: number): Promise<void> {
    await run('qemu-io', ['-f', 'raw', '-c', `write -P ${byte} ${offset} 64k`, `nbd+unix:///d${disk}?socket=${this.standIn.nbdPath}`]);
  }

  async protect(pair: Pair): Promise<void> {
    await pair.source.client.protect({ name: this.name, qmpPath: this.standIn.qmpPath, rpoMs: 1000, storageDaemonDisks: ['disk0', 'disk1'] });
  }

  /** Until the target has applied a point that was cut after now. */
  async settled(pair: Pair): Promise<void> {
    await pair.newPoint(this.name);
    const { newestPoint } = await pair.newPoint(this.name);
    await waitFor(async () => ((await pair.group(this.name)).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  }

  /** Null when both replicas hold what the disks do. The stand-in has ended. */
  async replicaDifference(pair: Pair): Promise<string | null> {
    const replicas = (await pair.group(this.name)).disks;
    for (const [index, { path, format }] of this.standIn.disks.entries()) {
      const difference = await imageDifference(path, format, replicas[index]!.replicaPath);
      if (difference !== null) return `disk ${index}: ${difference}`;
    }
    return null;
  }
}
