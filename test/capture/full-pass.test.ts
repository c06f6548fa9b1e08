/** A full pass under load, then deltas: the replica is the disks at every cut. And passes that fail, are paused, or find a guest that never rests. */
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { FullPassProgress, FullPassSink } from '../../daemon/capture/capture.ts';
import { nodeClock } from '../../host/node/clock.ts';
import type { PointId } from '../../journal/point.ts';
import { groupId, makeCapture, ownObjects } from './support/captures.ts';
import { startLoad } from './support/load.ts';
import { difference, Replica } from './support/replica.ts';
import { makeDisks, shortFolder, startStandIn, until, type StandIn } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });
const zeroes = Buffer.alloc(mib);

function sinkInto(replica: Replica): FullPassSink & { bytes: number } {
  const sink = {
    bytes: 0,
    write: (disk: number, offset: number, buffer: Buffer, headroomBytes: number): Promise<void> => {
      sink.bytes += buffer.length - headroomBytes;
      replica.write(disk, offset, buffer.subarray(headroomBytes));
      return Promise.resolve();
    },
    zero: (disk: number, offset: number, length: number): Promise<void> => {
      for (let done = 0; done < length; done += mib) replica.write(disk, offset + done, zeroes.subarray(0, Math.min(mib, length - done)));
      return Promise.resolve();
    },
  };
  return sink;
}

const fill = (standIn: StandIn, disk: number, command: string): void => { execFileSync('qemu-io', ['-f', 'raw', '-c', command, `nbd+unix:///d${disk}?socket=${standIn.nbdPath}`]); };
const passBitmaps = async (standIn: StandIn): Promise<string[]> => (await ownObjects(standIn.qmp)).filter((name) => !name.includes('-1-'));

t.test('a pass under load, then deltas', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 96 * mib, format: 'raw' }, { sizeBytes: 24 * mib + 512 * 5, format: 'qcow2' }, { sizeBytes: 8 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path });
  await capture.connect();
  for (let disk = 0; disk < 3; disk += 1) fill(standIn, disk, 'write -P 85 0 6M');
  fill(standIn, 1, `write -P 86 ${24 * mib} 2560`);
  t.match(await capture.reconcile(null), { standing: 'resync' });
  const load = startLoad(t, standIn, 200);
  const replica = new Replica(folder, 3);
  const progress: FullPassProgress[] = [];
  await capture.fullPass(sinkInto(replica), { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: (one) => progress.push(one) });
  t.same(progress.at(-1), { doneBytes: 128 * mib + 2560, totalBytes: 128 * mib + 2560 });
  await capture.settlePass(point(0));
  for (let cycle = 0; cycle < 3; cycle += 1) {
    await proxy.arm(standIn.disks);
    const delta = await capture.cut(point(cycle), point(cycle + 1), 'crash');
    const whole = await proxy.collect();
    await replica.apply(delta);
    for (const [index, path] of whole.entries()) {
      t.equal(difference(path, replica.path(index)), null, `cycle ${cycle}, disk ${index}`);
      rmSync(path);
    }
    await delta.end('acknowledged');
  }
  await load.stop();
  t.equal(load.failed(), '');
  await capture.release();
  t.same(await ownObjects(standIn.qmp), []);
  t.equal(standIn.said(), '');
});

t.test('a pass ends although the guest never rests', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 16 * mib, format: 'raw' }]), folder);
  const capture = makeCapture(standIn);
  await capture.connect();
  await capture.reconcile(null);
  const load = startLoad(t, standIn, 400);
  const replica = new Replica(folder, 1);
  const states: unknown[] = [];
  standIn.qmp.onEvent(({ event, data }) => { if (event === 'JOB_STATUS_CHANGE') states.push(data['status']); });
  // Far slower than the guest writes: the mirror itself would never be ready.
  await capture.fullPass(sinkInto(replica), { rateBytesPerSecond: 4 * mib, signal: new AbortController().signal, onProgress: () => undefined });
  t.notOk(states.includes('ready'), 'the mirror never was');
  await capture.settlePass(point(0));
  await load.stop();
  const delta = await capture.cut(point(0), point(1), 'crash');
  await replica.apply(delta);
  await delta.end('acknowledged');
  await capture.release();
  await standIn.quit();
  t.equal(difference(join(folder, 'disk0.raw'), replica.path(0)), null);
});

t.test('a link that is too slow for what QEMU has under way gets less of it in the next try', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 6 * mib, format: 'raw' }]), folder);
  fill(standIn, 0, 'write -P 85 0 6M');
  const passStallLimitMs = 3_000;
  const capture = makeCapture(standIn, { passStallLimitMs });
  await capture.connect();
  await capture.reconcile(null);
  const replica = new Replica(folder, 1);
  const sink = sinkInto(replica);
  // One run after the other, at a rate at which the limit is over before 6 MiB are through, and not before 1 MiB is.
  let turn = Promise.resolve();
  const slow: FullPassSink = { ...sink, write: (disk, offset, buffer, headroomBytes) => {
    turn = turn.then(() => nodeClock.delay((buffer.length - headroomBytes) / mib * (passStallLimitMs / 4))).then(() => sink.write(disk, offset, buffer, headroomBytes));
    return turn;
  } };
  const options = { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined };
  await t.rejects(capture.fullPass(slow, options), { code: 'QMP_COMMAND' }, 'the first try asks too much of it');
  turn = Promise.resolve();
  await capture.fullPass(slow, options).catch(() => { turn = Promise.resolve(); return capture.fullPass(slow, options); });
  await capture.release();
  await standIn.quit();
  t.equal(difference(join(folder, 'disk0.raw'), replica.path(0)), null);
});

t.test('a pass can be paused', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 48 * mib, format: 'raw' }]), folder);
  fill(standIn, 0, 'write -P 85 0 48M');
  const capture = makeCapture(standIn);
  await capture.connect();
  await capture.reconcile(null);
  const sink = sinkInto(new Replica(folder, 1));
  await capture.pausePass(true);
  const pass = capture.fullPass(sink, { rateBytesPerSecond: 16 * mib, signal: new AbortController().signal, onProgress: () => undefined });
  await until('its job is paused', async () => ((await standIn.qmp.execute<{ status: string }[]>('query-jobs'))[0]?.status === 'paused' ? true : undefined));
  t.ok(sink.bytes < 48 * mib);
  await capture.pausePass(false);
  await pass;
  t.equal(sink.bytes, 48 * mib);
  await capture.release();
});

t.test('a pass that is given up leaves nothing behind', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 16 * mib, format: 'raw' }, { sizeBytes: 16 * mib, format: 'raw' }]), folder);
  for (const disk of [0, 1]) fill(standIn, disk, 'write -P 85 0 16M');
  const capture = makeCapture(standIn);
  await capture.connect();
  await capture.reconcile(null);
  const replica = new Replica(folder, 2);

  const stop = new AbortController();
  const stopped = new Error('enough');
  // The sink never answers, as when a session is stuck.
  const hanging = capture.fullPass({ ...sinkInto(replica), write: () => { stop.abort(stopped); return new Promise(() => undefined); } }, { rateBytesPerSecond: 0, signal: stop.signal, onProgress: () => undefined });
  await t.rejects(hanging, stopped, 'aborted');
  t.same(await passBitmaps(standIn), []);

  const failed = new Error('the target is gone');
  const failing = capture.fullPass({ ...sinkInto(replica), write: () => Promise.reject(failed) }, { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined });
  await t.rejects(failing, failed, 'the sink failed');
  t.same(await passBitmaps(standIn), []);

  // The daemon dies in the middle; the next life finds what is left and takes it out.
  const dying = capture.fullPass({ ...sinkInto(replica), write: () => { void capture.close(); return Promise.resolve(); } }, { rateBytesPerSecond: 4 * mib, signal: new AbortController().signal, onProgress: () => undefined });
  await t.rejects(dying, { code: 'QMP_CLOSED' });
  const next = makeCapture(standIn);
  await next.connect();
  t.match(await next.reconcile(point(0)), { standing: 'resync' }, 'its bitmaps fit no point');
  t.same(await ownObjects(standIn.qmp), []);
  await next.fullPass(sinkInto(replica), { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined });
  t.same((await ownObjects(standIn.qmp)).sort(), [0, 1].map((disk) => `afterimage-${groupId.slice(0, 16)}-${disk}-pass`));
  await next.settlePass(point(0));
  await next.release();
  t.same(await ownObjects(standIn.qmp), []);
  await standIn.quit();
  for (const disk of [0, 1]) t.equal(difference(join(folder, `disk${disk}.raw`), replica.path(disk)), null);
});

t.test('the socket of a pass is given to the QEMU’s user, and never the folder that it lies in', { skip: process.getuid!() === 0 ? false : 'another user cannot be played without root' }, async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 4 * mib, format: 'raw' }]), folder);
  const stranger = 61_234;
  chownSync(standIn.qmpPath, stranger, stranger);
  const temporary = join(folder, 'tmp');
  mkdirSync(temporary);
  const { TMPDIR: before } = process.env;
  process.env['TMPDIR'] = temporary;
  t.teardown(() => { if (before === undefined) delete process.env['TMPDIR']; else process.env['TMPDIR'] = before; });
  // Too long for a socket's path: it lies in a folder of its own then.
  const capture = makeCapture(standIn, { folder: join(folder, 'x'.repeat(100)) });
  await capture.connect();
  await capture.reconcile(null);
  const seen: unknown[] = [];
  const look = (): void => {
    for (const name of readdirSync(temporary)) {
      const [outer, inner] = [statSync(join(temporary, name)), statSync(join(temporary, name, 'pass'))];
      seen.push([outer.uid, outer.mode & 0o777, inner.uid]);
    }
  };
  await capture.fullPass(sinkInto(new Replica(folder, 1)), { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: look });
  t.strictSame(seen.at(-1), [0, 0o711, stranger], 'whoever owned the folder could put a link in the socket’s place, to be given what it leads to');
  t.strictSame(readdirSync(temporary), [], 'and nothing is left of it');
  await capture.release();
});
