import t from 'tap';
import type { Disk } from '../../host/disk.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest } from '../store/model-guest.ts';
import { appendAll, openSeeded } from '../store/store-rig.ts';
import { applied, makeGate, RandomGuest, realStore, viewFault } from './history-oracle.ts';
import { withSlowReads } from './slow-reads.ts';

const KiB = 1024;

t.test('a reader that the applier overtakes between looking up and reading', async (t) => {
  const guest = new ModelGuest([64 * KiB]);
  const gate = makeGate();
  const disk: Disk = withSlowReads(new SimulatedDisk(), (path) => (path.endsWith('.raw') ? gate.pass() : Promise.resolve()));
  const { registry, store } = await openSeeded(disk, guest, { segmentBytes: 128 * KiB });
  guest.write(0, 0, Buffer.alloc(32 * KiB, 1));
  await appendAll(store, guest.cut());
  await applied(store);
  const view = await realStore(store).restorePoints.open(guest.newest!);

  await t.test('reads what was there', async (t) => {
    gate.close();
    const bytes = Buffer.alloc(48 * KiB);
    const reading = view.read(0, 8 * KiB, bytes);
    await gate.someoneWaits();
    gate.openForOthers();
    // In part, twice, with zeroes, and cut off in between.
    guest.write(0, 16 * KiB, Buffer.alloc(8 * KiB, 2));
    guest.zero(0, 28 * KiB, 2 * KiB);
    await appendAll(store, guest.cut());
    await applied(store);
    guest.write(0, 12 * KiB, Buffer.alloc(8 * KiB, 3));
    await appendAll(store, guest.cut());
    await applied(store);
    guest.resize(0, 20 * KiB);
    await appendAll(store, guest.cut());
    await applied(store);
    gate.open();
    await reading;
    t.ok(bytes.equals(guest.at(view.point)[0]!.subarray(8 * KiB, 56 * KiB)));
  });

  await t.test('and the whole view still agrees', async (t) => {
    t.equal(await viewFault(view, guest, new RandomGuest(1).dice), null);
  });
  await view.release();
  await registry.close();
});
