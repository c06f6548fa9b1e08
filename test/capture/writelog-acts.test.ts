/**
 * What happens to a guest while its writes are logged: it is reset, its disks are resized, one comes and goes, somebody snapshots and
 * commits back, it powers off after a hundred cuts. No write of the guest fails, no wrong point is made, what a supervisor does
 * heals the capture, and the logs come back. On real guests under load, an I/O thread for each disk.
 */
import { rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import { isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { listGuestDisks } from '../../qemu/guest-disks.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { isLong } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, nodesOf, sinkInto } from './support/guests.ts';
import { ProtectedGuest, type ProtectedParts } from './support/protected-guest.ts';
import { shortFolder, until } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

/** With write logs; an unplugged disk takes a new look at the guest. */
class Logged extends ProtectedGuest {
  readonly guest: LabGuest;

  constructor(parts: ProtectedParts, guest: LabGuest) {
    super(parts);
    this.guest = guest;
  }

  static async start(t: Test, device: 'virtio-blk' | 'virtio-scsi'): Promise<Logged> {
    const folder = shortFolder(t);
    const disks = await Promise.all((['raw', 'qcow2'] as const).map(async (format, index) => (
      { path: await createLabDisk(`${folder}/disk${index}`, format, 16 * mib), format, device, iothread: true })));
    const ports = ['-device', 'pcie-root-port,id=port0,chassis=1'];
    const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 1000, append: 'af.discards=0', memoryMiB: 128, extraArgs: ports });
    await guest.waitForLine(/^AF STAMP \d+/, 60_000);
    const own = await connectQmp(guest.ownQmpPath);
    t.teardown(() => own.close());
    const proxy = await WholeProxy.start(t, folder, guest.qmpPath, own);
    const capture = captureGuest(folder, proxy.path, { capture: 'writelog' });
    t.teardown(() => capture.close());
    await capture.connect();
    await capture.reconcile(null);
    const one = new Logged({ t, folder, capture, proxy, own }, guest);
    await one.pass();
    t.same(await one.advance('at first'), []);
    await one.logged('at first');
    return one;
  }

  override async reconcile(code: string): Promise<void> {
    if (code === 'GUEST_CHANGED') {
      await this.capture.close();
      await this.capture.connect();
    }
    await super.reconcile(code);
  }

  /** Until points are read from the logs again. */
  async logged(what: string): Promise<void> {
    this.capture.choose('writelog'); // no pause after they were given up
    for (let turn = 0, from = this.capture.figures().logCuts; turn < 10; turn += 1) {
      await this.advance(`${what}, to the logs`);
      if (this.capture.figures().logCuts >= from + 2) return;
    }
    this.t.fail(`${what}: no logs came back (${this.capture.figures().captureWhy})`);
  }

  async cutFast(cuts: number): Promise<void> {
    for (let turn = 0; turn < cuts; turn += 1) {
      const delta = await this.capture.cut(point(this.held), point(this.held + 1), 'crash');
      await this.replica.apply(delta);
      await delta.end('acknowledged');
      this.held += 1;
    }
  }

  /** The guest writes on, and no write of it failed. */
  async isWell(what: string): Promise<void> {
    await this.guest.waitForLine(/^AF STAMP \d+/, 60_000, this.guest.serial.length);
    this.t.notOk(this.guest.serial.some(({ text }) => text.includes('FAILED') || text.includes('I/O error') || /^AF RAW \S+ \d+ \d+ [1-9]/.test(text)), `${what}: no write of the guest failed`);
  }
}

/** QEMU refuses what meets the job of a cut: an operator tries again. */
async function retried(act: () => Promise<unknown>): Promise<void> {
  let why = '';
  await until('QEMU to take the operator’s command', () => act().then(() => true, (error: unknown) => { why = String(error); return undefined; }))
    .catch((error: unknown) => { throw new Error(`${why}: ${String(error)}`); });
}

for (const device of isLong ? ['virtio-blk', 'virtio-scsi'] as const : ['virtio-blk'] as const) {
  t.test(`acts while logged: ${device}`, { timeout: 110_000 }, async (t) => {
    const one = await Logged.start(t, device);
    const { own, guest, capture } = one;

    // Reset.
    const from = guest.serial.length;
    await own.execute('system_reset');
    t.same(await one.advance('reset'), [], 'a reset goes unnoticed');
    await guest.waitForLine(/^AF STAMP \d+/, 60_000, from);
    await one.isWell('reset');
    await one.logged('after the reset');
    t.equal(one.passes, 1, 'and takes no full pass');

    // Resize, by the node that the operator gave the disk: the guest hears of it though a log is in between.
    await retried(() => own.execute('block_resize', { 'node-name': 'node0', size: 20 * mib }));
    await retried(() => own.execute('block_resize', { 'node-name': 'node1', size: 18 * mib }));
    await one.advance('resized');
    t.same(capture.disks().map(({ sizeBytes }) => sizeBytes), [20 * mib, 18 * mib]);
    await one.logged('after the resize');
    await until('the devices to have the new sizes', async () => ((await seenSizes(own)).join() === [20 * mib, 18 * mib].join() ? true : undefined));
    const disk0 = device === 'virtio-blk' ? 'vda' : 'sda';
    if (device === 'virtio-scsi') await guest.command('sh echo 1 >/sys/block/sda/device/rescan');
    await until('the guest to hear of it', async () => ((await guest.command(`size ${disk0}`)).some(({ text }) => text === `AF SIZE ${disk0} ${20 * mib}`) ? true : undefined));
    await one.isWell('resized');
    t.equal(one.passes, 1, 'a larger disk takes no full pass');

    // An external snapshot of one disk as an operator takes it, and back.
    const overlay = await createLabDisk(`${one.folder}/overlay`, 'qcow2', 20 * mib);
    await own.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'over0', backing: null, file: { driver: 'file', filename: overlay } });
    await retried(() => own.execute('blockdev-snapshot', { node: 'node0', overlay: 'over0' }));
    await one.isWell('overlaid');
    await one.advance('overlaid');
    await one.advance('on the overlay');
    await one.isWell('on the overlay');
    // QEMU commits no node that has another above it, which an operator who names their own node cannot know: without a log, it does.
    capture.choose('cbt');
    await one.advance('without logs');
    t.equal(capture.figures().capture, 'cbt');
    await commitBack(own, 'over0', 'node0');
    await one.advance('committed back');
    await one.isWell('committed back');
    await one.logged('after the commit');

    await one.cutFast(20);
    await capture.release();
    t.same(await ownObjects(own), []);
    await guest.powerOff();
  });

  t.test(`a disk comes and goes while logged: ${device}`, { timeout: 110_000 }, async (t) => {
    const one = await Logged.start(t, device);
    const { own, guest, capture } = one;
    const path = await createLabDisk(`${one.folder}/disk2`, 'raw', 4 * mib);
    await own.execute('blockdev-add', { driver: 'raw', 'node-name': 'node2', file: { driver: 'file', filename: path } });
    if (device === 'virtio-blk') await own.execute('device_add', { driver: 'virtio-blk-pci', bus: 'port0', drive: 'node2', id: 'disk2' });
    else await own.execute('device_add', { driver: 'scsi-hd', bus: 'scsi0.0', lun: 1, drive: 'node2', id: 'disk2' });
    const deleted = (): Promise<void> => new Promise((resolve) => { own.onEvent(({ event, data }) => { if (event === 'DEVICE_DELETED' && data?.['device'] === 'disk2') resolve(); }); });
    await one.advance('plugged in');
    t.equal(capture.disks().length, 3);
    await one.logged('with a third disk');
    const gone = deleted();
    await own.execute('device_del', { id: 'disk2' });
    await gone;
    await one.advance('unplugged');
    t.equal(capture.disks().length, 2);
    await one.logged('without the third disk');
    await one.isWell('unplugged');
    await retried(() => own.execute('blockdev-del', { 'node-name': 'node2' }));

    // A guest that powers off in the midst of it, with all its logs in.
    await one.cutFast(100);
    t.equal(capture.figures().capture, 'writelog');
    await guest.powerOff();
    t.equal((await guest.exited).code, 0, 'QEMU ends by itself');
  });
}

/** As the guest's devices have them: of the nodes that they are on. */
async function seenSizes(own: QmpConnection): Promise<number[]> {
  const tops = (await listGuestDisks(own)).map(({ topNode }) => topNode);
  const nodes = await own.execute<{ 'node-name': string; image: { 'virtual-size': number } }[]>('query-named-block-nodes', { flat: true });
  return tops.map((top) => nodes.find((node) => node['node-name'] === top)!.image['virtual-size']);
}

async function commitBack(own: QmpConnection, top: string, base: string): Promise<void> {
  await retried(() => own.execute('block-commit', { 'job-id': 'commit', device: top, 'top-node': top, 'base-node': base, 'auto-dismiss': false }));
  const status = (): Promise<string | undefined> => own.execute<{ id: string; status: string }[]>('query-jobs').then((jobs) => jobs.find(({ id }) => id === 'commit')?.status);
  await until('the commit is ready', async () => (await status() === 'ready' ? true : undefined));
  await own.execute('job-complete', { id: 'commit' });
  await until('the commit is over', async () => (await status() === 'concluded' ? true : undefined));
  await own.execute('job-dismiss', { id: 'commit' });
  await retried(() => own.execute('blockdev-del', { 'node-name': top }));
}
