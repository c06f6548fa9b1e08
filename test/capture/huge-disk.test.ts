/** A disk beyond what a VHD can describe: cut without that layer, at the price of a line of QEMU's in the guest's log. */
import { execFileSync } from 'node:child_process';
import t from 'tap';
import type { PointId } from '../../journal/point.ts';
import { makeCapture, ownObjects, plantOn } from './support/captures.ts';
import { makeDisks, shortFolder, startStandIn } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const tib = 1024 ** 4;
const point = (number: number): PointId => ({ term: 1, point: number });

t.test('9 TiB', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 9 * tib, format: 'qcow2' }, { sizeBytes: 8 * mib, format: 'raw' }]), folder);
  await plantOn(standIn);
  const capture = makeCapture(standIn);
  await capture.connect();
  t.same(await capture.reconcile(point(0)), { standing: 'ready' });
  const places = [0, 3 * tib - 65536, 9 * tib - 65536];
  for (const at of places) execFileSync('qemu-io', ['-f', 'raw', '-c', `write -P 7 ${at} 64k`, `nbd+unix:///d0?socket=${standIn.nbdPath}`]);
  const delta = await capture.cut(point(0), point(1), 'crash');
  const runs = [...delta.runs()];
  t.same(runs.map(({ disk, offset, length }) => ({ disk, offset, length })), places.map((offset) => ({ disk: 0, offset, length: 65536 })));
  for (const run of runs) {
    const bytes = Buffer.alloc(65536);
    if (run.kind === 'data') await run.read(bytes, 0);
    t.ok(bytes.equals(Buffer.alloc(65536, 7)));
  }
  await delta.end('acknowledged');
  await capture.release();
  t.same(await ownObjects(standIn.qmp), []);
  const said = standIn.said().trim().split('\n');
  t.equal(said.length, 1, standIn.said());
});
