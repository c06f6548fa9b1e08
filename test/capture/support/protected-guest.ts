/** A guest, its capture, and the point that its target holds: what a supervisor does with them, step by step. Not a suite. */
import { rmSync } from 'node:fs';
import type { Test } from 'tap';
import type { CbtCapture } from '../../../daemon/capture/cbt-capture.ts';
import { isFault } from '../../../journal/fault.ts';
import type { PointId } from '../../../journal/point.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import { nodesOf, passWhole } from './guests.ts';
import { difference, Replica } from './replica.ts';
import type { WholeProxy } from './whole-proxy.ts';

const point = (number: number): PointId => ({ term: 1, point: number });

export interface ProtectedParts {
  readonly t: Test;
  readonly folder: string;
  readonly capture: CbtCapture;
  readonly proxy: WholeProxy;
  /** The test's own connection. */
  readonly own: QmpConnection;
}

export class ProtectedGuest {
  held = 0;
  passes = 0;
  replica: Replica;
  readonly t: Test;
  readonly folder: string;
  readonly capture: CbtCapture;
  readonly proxy: WholeProxy;
  readonly own: QmpConnection;

  constructor({ t, folder, capture, proxy, own }: ProtectedParts) {
    this.t = t;
    this.folder = folder;
    this.capture = capture;
    this.proxy = proxy;
    this.own = own;
    this.replica = new Replica(folder, 0);
  }

  async pass(): Promise<void> {
    // Disks may have come or gone.
    this.replica = new Replica(this.folder, (await nodesOf(this.own)).length);
    await passWhole(this.capture, this.replica, point(this.held));
    this.passes += 1;
  }

  /** Until there is a new point; the point must be the disks. Returns the faults on the way. */
  async advance(what: string): Promise<string[]> {
    const faults: string[] = [];
    for (let turn = 0; turn < 6; turn += 1) {
      await this.proxy.arm(await nodesOf(this.own));
      try {
        const delta = await this.capture.cut(point(this.held), point(this.held + 1), 'crash');
        const whole = await this.proxy.collect();
        await this.replica.apply(delta);
        for (const [index, path] of whole.entries()) {
          this.t.equal(difference(path, this.replica.path(index)), null, `${what}: disk ${index}`);
          rmSync(path);
        }
        await delta.end('acknowledged');
        this.held += 1;
        return faults;
      } catch (error) {
        if (!isFault(error)) throw error;
        faults.push(error.code);
        for (const path of await this.proxy.collect()) rmSync(path);
        await this.reconcile(error.code);
      }
    }
    throw new Error(`no point after ${what}: ${faults.join(', ')}`);
  }

  /** After a fault of this code. */
  async reconcile(_code: string): Promise<void> {
    const { standing } = await this.capture.reconcile(point(this.held));
    if (standing === 'resync') await this.pass();
  }
}
