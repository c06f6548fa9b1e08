/**
 * The daemon dies before or after each command that it sends in a cycle or a round, with the target holding the new point or
 * not. A new life reconciles, finds the bitmaps good, and its first point is the disks exactly as they were at its cut.
 */
import { rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import type { PointId } from '../../journal/point.ts';
import { Fault } from '../../journal/fault.ts';
import { makeCapture, ownObjects, plantOn } from './support/captures.ts';
import { startLoad } from './support/load.ts';
import { difference, Replica } from './support/replica.ts';
import { makeDisks, shortFolder, startStandIn, until, type StandIn } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

/** One life from reconcile to the end of one cut; returns what the target holds afterwards. */
async function live(capture: CbtCapture, held: PointId, parts: number, replica: Replica, isReceived: boolean): Promise<{ held: PointId; parts: number }> {
  await capture.reconcile(held, parts);
  const next = point(held.point + 1);
  const delta = await capture.cut(held, next, 'crash');
  if (isReceived) {
    await replica.apply(delta);
  }
  const after = !isReceived ? { held, parts } : delta.isRound ? { held, parts: parts + 1 } : { held: next, parts: 0 };
  await delta.end(isReceived ? 'acknowledged' : 'dropped').catch((error: unknown) => { if (!(error instanceof Fault)) throw error; });
  return after;
}

async function killAtEach(t: Test, standIn: StandIn, budgetBytes: number, expectRound: boolean, beforeEach: () => Promise<void>): Promise<void> {
  const { folder } = standIn;
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  await plantOn(standIn);
  const replica = new Replica(folder, standIn.disks.length);
  let at = { held: point(0), parts: 0 };
  let moments = 0;
  let rounds = 0;
  for (let k = 1, isOver = false; !isOver; k += 1) {
    isOver = true;
    for (const fate of ['die', 'dieAfter'] as const) {
      // Each fate with each outcome for every other command: half the time, and nearly all the pairs.
      for (const isReceived of [(fate === 'die') === (k % 2 === 0)]) {
        await beforeEach();
        let count = 0;
        const capture = makeCapture(standIn, { qmpPath: proxy.path, budgetBytes });
        await capture.connect();
        proxy.onCommand = ({ execute }) => {
          // How often a round's job is looked at differs from time to time.
          if (execute === 'query-jobs') return 'pass';
          count += 1;
          return count === k ? fate : 'pass';
        };
        try {
          at = await live(capture, at.held, at.parts, replica, isReceived);
        } catch (error) {
          // A round stops itself by looking how far it is; on a machine that looks too late its cap stops it: dropped, and taken again.
          const isCapped = expectRound && error instanceof Fault && error.code === 'DELTA_BROKEN';
          if (!isCapped && (!(error instanceof Fault) || error.code !== 'QMP_CLOSED')) throw error;
        }
        rounds += capture.figures().rounds;
        if (count >= k) isOver = false;
        proxy.onCommand = () => 'pass';
        await capture.close();
        moments += 1;

        // The next life, with a spool that holds everything.
        const next = makeCapture(standIn, { qmpPath: proxy.path });
        await next.connect();
        t.same(await next.reconcile(at.held, at.parts), { standing: 'ready' }, `moment ${k} ${fate}, ${isReceived ? 'received' : 'not received'}`);
        await proxy.arm(standIn.disks);
        const delta = await next.cut(at.held, point(at.held.point + 1), 'crash');
        const whole = await proxy.collect();
        await replica.apply(delta);
        for (const [index, path] of whole.entries()) {
          t.equal(difference(path, replica.path(index)), null, `moment ${k} ${fate}, disk ${index}`);
          rmSync(path);
        }
        await delta.end('acknowledged');
        at = { held: point(at.held.point + 1), parts: 0 };
        t.same((await ownObjects(standIn.qmp)).length, standIn.disks.length, 'one bitmap per disk and nothing else');
        await next.close();
      }
    }
  }
  t.comment(`${moments} moments, ${rounds} rounds`);
  t.ok(moments > 30);
  if (expectRound) t.ok(rounds >= 2, `${rounds} rounds`);
  const last = makeCapture(standIn, { qmpPath: proxy.path });
  await last.connect();
  await last.release();
  t.same(await ownObjects(standIn.qmp), []);
}

t.test('in a cycle', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 8 * mib, format: 'raw' }, { sizeBytes: 4 * mib, format: 'qcow2' }]), folder);
  const load = startLoad(t, standIn, 100);
  await killAtEach(t, standIn, 64 * mib, false, () => Promise.resolve());
  await load.stop();
  t.equal(load.failed(), '');
  t.equal(standIn.said(), '');
});

t.test('in a round', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 16 * mib, format: 'raw' }, { sizeBytes: 4 * mib, format: 'raw' }]), folder);
  const load = startLoad(t, standIn, 400);
  const measure = makeCapture(standIn);
  await killAtEach(t, standIn, 4 * mib, true, async () => {
    await measure.connect();
    await until('enough is dirty for a round', async () => (await measure.measureDirtyBytes() > 6 * mib ? true : undefined));
    await measure.close();
  });
  await load.stop();
  t.equal(load.failed(), '');
  t.equal(standIn.said(), '');
});
