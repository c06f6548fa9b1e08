/** The replica after any sequence of deltas equals a naive model: two disks, overlaps, zeroes, resizes, parts, restarts and power cuts. */
import fc from 'fast-check';
import t from 'tap';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';
import { appendAll, openOn, openSeeded, replicaFault, walkBack } from '../store/store-rig.ts';

const sector = 512;
const sectorsMax = 96;

const run = fc.record({ disk: fc.integer({ min: 0, max: 1 }), at: fc.nat(sectorsMax - 1), length: fc.integer({ min: 1, max: 24 }), isZero: fc.boolean(), fill: fc.integer({ min: 1, max: 255 }) });
const delta = fc.record({
  runs: fc.array(run, { maxLength: 8 }),
  resize: fc.option(fc.record({ disk: fc.integer({ min: 0, max: 1 }), sectors: fc.integer({ min: 1, max: sectorsMax }) }), { freq: 3 }),
  isResizedFirst: fc.boolean(),
  isCompressed: fc.boolean(),
  runsPerPart: fc.option(fc.integer({ min: 1, max: 3 }), { freq: 3 }),
  after: fc.constantFrom('nothing', 'nothing', 'nothing', 'applied', 'killed', 'power cut'),
});

t.test('replica and every boundary of the history', async (t) => {
  let walked = 0;
  await fc.assert(fc.asyncProperty(fc.array(delta, { minLength: 1, maxLength: 10 }), fc.nat(), async (deltas, seed) => {
    let disk = new SimulatedDisk();
    const guest = new ModelGuest([64 * sector, 16 * sector]);
    let { registry, store } = await openSeeded(disk, guest, { isApplierStalled: true, segmentBytes: 24 * 1024, batchBytes: 12 * 1024 });
    for (const [index, one] of deltas.entries()) {
      const resize = (): void => { if (one.resize !== null) guest.resize(one.resize.disk, one.resize.sectors * sector); };
      if (one.isResizedFirst) resize();
      for (const { disk: on, at, length, isZero, fill } of one.runs) {
        const size = guest.disks[on]!.length / sector;
        if (at >= size) continue;
        const bytes = Math.min(length, size - at) * sector;
        if (isZero) guest.zero(on, at * sector, bytes); else guest.write(on, at * sector, Buffer.alloc(bytes, fill));
      }
      if (!one.isResizedFirst) resize();
      await store.announce(sourceId, guest.announcement());
      await appendAll(store, guest.cut({ isCompressed: one.isCompressed, ...(one.runsPerPart === null ? {} : { runsPerPart: one.runsPerPart }) }));
      if (one.after === 'applied') await store.compare(0, 0, sector, sector, Buffer.alloc(32));
      if (one.after === 'killed' || one.after === 'power cut') {
        disk = one.after === 'killed' ? disk.afterKill() : disk.afterPowerCut(seed + index);
        registry = await openOn(disk, { isApplierStalled: true, segmentBytes: 24 * 1024, batchBytes: 12 * 1024 });
        store = registry.find('vm1')!;
      }
    }
    await store.drain();
    const fault = replicaFault(disk, guest, guest.newest);
    if (fault !== null) throw new Error(fault);
    const seen = await walkBack(disk, guest, guest.newest!);
    walked += seen.length;
    await registry.close();
    return seen.at(-1) === '0.0';
  }), { numRuns: 120 });
  t.ok(walked > 200, `${walked} boundaries`);
});
