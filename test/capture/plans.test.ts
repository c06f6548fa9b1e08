/** The pure decisions: names, what a cycle is to be, what bitmaps are good for, which blocks a pass has covered. */
import fc from 'fast-check';
import t from 'tap';
import { CoveredBlocks, coveredBlockBytes } from '../../daemon/capture/covered-blocks.ts';
import { dataForCap, planCycle } from '../../daemon/capture/cycle-plan.ts';
import { capForData, imageClusterBytes } from '../../daemon/capture/delta-image.ts';
import type { FoundBitmap } from '../../daemon/capture/guest-objects.ts';
import { bitmapName, CycleStamps, nodeName, parseBitmapName, type BitmapRole } from '../../daemon/capture/object-names.ts';
import { planReconcile, type ReconcilePlan } from '../../daemon/capture/reconcile-plan.ts';
import type { PointId } from '../../journal/point.ts';
import { groupId } from './support/captures.ts';

const mib = 1024 * 1024;
const gib = 1024 * mib;

t.test('a bitmap name says whose it is and since when', (t) => {
  const count = fc.integer({ min: 0, max: 999_999_999 });
  const point = fc.record({ term: count, point: count });
  const role: fc.Arbitrary<BitmapRole> = fc.oneof(
    fc.record({ role: fc.constant('pass' as const) }), fc.record({ role: fc.constantFrom('point' as const, 'cut' as const), point }),
    fc.record({ role: fc.constantFrom('work' as const, 'copy' as const), point, parts: count }),
  );
  fc.assert(fc.property(role, fc.integer({ min: 0, max: 255 }), (one, disk) => {
    t.same(parseBitmapName(bitmapName(groupId, disk, one)), { ...one, disk, group: groupId.slice(0, 16) });
  }), { numRuns: 50 });
  for (const name of ['', 'afterimage', 'backup-1', `afterimage-${groupId.slice(0, 16)}-0-1`, `afterimage-${groupId.slice(0, 16)}-0-1-2-work`, `afterimage-${groupId}-0-pass`]) t.equal(parseBitmapName(name), undefined, name);
  t.end();
});

t.test('node names are short enough for QEMU, and never used twice', (t) => {
  const stamps = new CycleStamps();
  const year2050 = Date.UTC(2050, 0, 1);
  const seen = new Set([year2050, year2050, year2050 - 1000, year2050].map((ms) => stamps.next(ms)));
  t.equal(seen.size, 4, 'also when the clock stands still or goes back');
  for (const stamp of seen) t.ok(nodeName(groupId, stamp, 255, 'image').length <= 31);
  t.end();
});

t.test('a cycle is whole when the spool holds it, a round when not, nothing when not even that', (t) => {
  const disk = (number: number, sizeBytes: number, dirtyBytes: number): { disk: number; sizeBytes: number; dirtyBytes: number } => ({ disk: number, sizeBytes, dirtyBytes });
  t.equal(planCycle([disk(0, 100 * gib, 0), disk(1, gib, 0)], 8 * mib, 1.25).kind, 'whole', 'an idle guest needs next to nothing');
  t.equal(planCycle([disk(0, 100 * gib, gib)], 4 * gib, 1.25).kind, 'whole');
  t.match(planCycle([disk(0, 100 * gib, gib), disk(1, 100 * gib, 3 * gib)], gib, 1.25), { kind: 'round', disk: 1 }, 'of the dirtiest disk');
  t.equal(planCycle([disk(0, 100 * gib, gib)], mib, 1.25).kind, 'full');
  t.equal(planCycle([disk(0, 100 * gib, 0)], -5, 1.25).kind, 'full');
  fc.assert(fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 4096 }), fc.double({ min: 0, max: 1, noNaN: true })), { minLength: 1, maxLength: 5 }), fc.integer({ min: 0, max: 8192 }), fc.double({ min: 1.25, max: 10, noNaN: true }), (wanted, roomMib, margin) => {
    const disks = wanted.map(([sizeMib, share], index) => disk(index, sizeMib * mib, Math.floor(sizeMib * share) * mib));
    const plan = planCycle(disks, roomMib * mib, margin);
    if (plan.kind === 'whole') {
      const sum = plan.caps.reduce((total, { capBytes }) => total + capBytes, 0);
      t.ok(sum <= roomMib * mib);
      for (const [index, { capBytes }] of plan.caps.entries()) t.ok(capBytes % imageClusterBytes === 0 && dataForCap(disks[index]!.sizeBytes, capBytes) >= disks[index]!.dirtyBytes);
    } else if (plan.kind === 'round') {
      t.ok(plan.capBytes <= roomMib * mib && plan.stopAtBytes < dataForCap(disks[plan.disk]!.sizeBytes, plan.capBytes) && plan.stopAtBytes > 0 && plan.speedBytesPerSecond > 0);
    } else {
      t.ok(disks.some(({ dirtyBytes }) => dirtyBytes > 0) || roomMib < 8);
    }
  }), { numRuns: 200 });
  t.end();
});

t.test('the cap for some data holds that data', (t) => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 64 * 1024 }), fc.integer({ min: 0, max: 64 * 1024 }), (sizeMib, dataMib) => {
    const cap = capForData(sizeMib * mib, dataMib * mib);
    t.ok(dataForCap(sizeMib * mib, cap) >= Math.min(dataMib, sizeMib) * mib);
  }), { numRuns: 200 });
  t.end();
});

t.test('covered blocks agree with a naive set', (t) => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 40 * 128 }), fc.array(fc.tuple(fc.nat(5000), fc.nat(700)), { maxLength: 60 }), (sectors, runs) => {
    const size = sectors * 512;
    const covered = new CoveredBlocks(size);
    const naive = new Set<number>();
    for (const [start, count] of runs) {
      const offset = Math.min(start, sectors - 1) * 512;
      const length = Math.min(count * 512, size - offset);
      covered.add(offset, length);
      for (let block = 0; block * coveredBlockBytes < size; block += 1) {
        if (block * coveredBlockBytes >= offset && Math.min(size, (block + 1) * coveredBlockBytes) <= offset + length) naive.add(block);
      }
    }
    t.equal(covered.isComplete, naive.size === Math.ceil(size / coveredBlockBytes));
  }), { numRuns: 200 });
  const whole = new CoveredBlocks(3 * 65536 + 512);
  whole.add(0, 3 * 65536);
  t.notOk(whole.isComplete);
  whole.add(3 * 65536, 512);
  t.ok(whole.isComplete);
  t.equal(whole.bytes, 3 * 65536 + 512);
  t.end();
});

t.test('which bitmaps are right for what the target holds', (t) => {
  const disks = [{ disk: 0, name: 'vda', trackNode: 'n0' }, { disk: 1, name: 'vdb', trackNode: 'n1' }];
  const since = (term: number, point: number): PointId => ({ term, point });
  const bitmap = (disk: number, role: BitmapRole, more: Partial<FoundBitmap> = {}, group = groupId): FoundBitmap => (
    { node: `n${disk}`, name: bitmapName(group, disk, role), count: 0, granularity: 65536, isRecording: true, isBusy: false, isInconsistent: false, ...more });
  const point = (disk: number, number: number, more: Partial<FoundBitmap> = {}): FoundBitmap => bitmap(disk, { role: 'point', point: since(1, number) }, more);
  const part = (disk: number, role: 'work' | 'copy', parts: number): FoundBitmap => bitmap(disk, { role, point: since(1, 4), parts });
  const plan = (held: PointId | null, bitmaps: readonly FoundBitmap[], heldParts = 0): ReconcilePlan => planReconcile({ groupId, held, heldParts, disks, bitmaps });
  const removed = ({ removals }: ReconcilePlan): string[] => removals.map(({ node, name }) => `${node} ${name}`).sort();
  const names = (bitmaps: readonly FoundBitmap[]): string[] => bitmaps.map(({ node, name }) => `${node} ${name}`).sort();

  const both = [point(0, 4), point(1, 4)];
  const next = [0, 1].map((disk) => bitmap(disk, { role: 'cut', point: since(1, 5) }));
  t.match(plan(since(1, 4), both), { standing: { standing: 'ready' }, removals: [], merges: [] });
  const overlaid = plan(since(1, 4), [...both, point(1, 4, { node: 'n1-beneath' })]);
  t.match(overlaid.standing, { standing: 'resync', why: /overlaid/ }, 'one that was copied onto an overlay by name lacks what came before');
  t.equal(overlaid.removals.length, 3);
  const mid = plan(since(1, 4), [...both, ...next]);
  t.equal(mid.standing.standing, 'ready', 'in the middle of a cycle, not received');
  t.same(removed(mid), names(next));
  const got = plan(since(1, 5), [...both, ...next]);
  t.equal(got.standing.standing, 'ready', 'in the middle of a cycle, received');
  t.same(removed(got), names(both));
  t.same(got.promotions, [0, 1].map((disk) => ({ disk, node: `n${disk}`, from: next[disk]!.name, to: point(disk, 5).name })));
  t.same(mid.promotions, []);

  const resyncs: Record<string, [PointId | null, readonly FoundBitmap[]]> = {
    'the target holds nothing': [null, both],
    'no bitmaps': [since(1, 4), []],
    'one disk without': [since(1, 4), [point(0, 4)]],
    'another point': [since(1, 6), both],
    'another term': [since(2, 4), both],
    'a cut on one disk only': [since(1, 5), [...both, next[0]!]],
    'the disks disagree': [since(1, 4), [point(0, 4), point(1, 5)]],
    'not saved': [since(1, 4), [point(0, 4), point(1, 4, { isInconsistent: true })]],
    'not recording': [since(1, 4), [point(0, 4, { isRecording: false }), point(1, 4)]],
    'busy': [since(1, 4), [point(0, 4, { isBusy: true }), point(1, 4)]],
    'coarser': [since(1, 4), [point(0, 4, { granularity: 1024 * 1024 }), point(1, 4)]],
    'on another node': [since(1, 4), [point(0, 4), point(1, 4, { node: 'backing' })]],
    'of a pass': [since(1, 0), [bitmap(0, { role: 'pass' }), bitmap(1, { role: 'pass' })]],
    'of another group': [since(1, 4), [0, 1].map((disk) => bitmap(disk, { role: 'point', point: since(1, 4) }, {}, 'f'.repeat(32)))],
  };
  for (const [why, [held, bitmaps]] of Object.entries(resyncs)) {
    const found = plan(held, bitmaps);
    t.equal(found.standing.standing, 'resync', why);
    t.same(removed(found), names(bitmaps), `${why}: all removed`);
  }

  const foreign: FoundBitmap = { ...point(0, 4), name: 'nightly-backup' };
  t.same(plan(null, [foreign]).removals, [], 'what is not ours stays');

  const rounds = [...both, part(0, 'work', 2), part(1, 'work', 2), part(0, 'copy', 2)];
  t.match(plan(since(1, 4), rounds, 2), { workParts: 2, merges: [{ node: 'n0', target: part(0, 'work', 2).name, source: part(0, 'copy', 2).name }] }, 'parts that the target holds are not taken again');
  t.match(plan(since(1, 4), rounds, 3), { workParts: 2 }, 'the acknowledgement of one was lost');
  t.match(plan(since(1, 4), rounds, 1), { workParts: null, merges: [] }, 'the target lost one');
  t.match(plan(since(1, 4), rounds.slice(0, 3), 2), { workParts: null }, 'not on every disk');
  t.end();
});
