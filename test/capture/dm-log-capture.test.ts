/** The capture of a disk whose writes the kernel logs: the test plays the kernel, and knows what the device held at each instant. */
import { execFileSync } from 'node:child_process';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FullPassSink } from '../../daemon/capture/capture.ts';
import { DmLogCapture } from '../../daemon/capture/dm-log/dm-log-capture.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { isFault } from '../../journal/fault.ts';
import { LogWritesKernel } from './support/log-writes-kernel.ts';
import { Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const deviceBytes = 8 * 1024 * 1024;

function captureOf(kernel: LogWritesKernel, folder: string, clock = nodeClock): DmLogCapture {
  return new DmLogCapture({
    devicePath: kernel.devicePath, logPath: kernel.logPath, notePath: join(folder, 'note.json'), clock, random: nodeRandom,
    writeMark: (_device, text) => kernel.mark(text),
  });
}

/** Writes for as long as it is not stopped; what it writes where differs each time. */
function startWriter(kernel: LogWritesKernel): { stop(): Promise<number> } {
  let isStopped = false;
  let count = 0;
  const done = (async () => {
    while (!isStopped) {
      const sectors = 1 + Math.floor(Math.random() * 64);
      const sector = Math.floor(Math.random() * (deviceBytes / 512 - sectors));
      if (count % 17 === 16) kernel.discard(sector, sectors);
      else await kernel.write(sector, Buffer.alloc(sectors * 512, `${count} `), count % 11 === 0 ? 2 : 0);
      if (count % 7 === 0) kernel.flush();
      count += 1;
      await nodeClock.delay(1);
    }
  })();
  return { stop: async () => { isStopped = true; await done; return count; } };
}

function sinkOf(replica: Replica): FullPassSink {
  return {
    write: (disk, offset, buffer, headroomBytes) => Promise.resolve(replica.write(disk, offset, buffer.subarray(headroomBytes))),
    zero: () => Promise.reject(new Error('no zeroes were to come')),
  };
}

const passOptions = { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined };
const point = (number: number) => ({ term: 1, point: number });

async function firstSync(capture: DmLogCapture, replica: Replica): Promise<void> {
  await capture.connect();
  await capture.reconcile(null);
  await capture.fullPass(sinkOf(replica), passOptions);
  await capture.settlePass(point(0));
}

const holds = async (replica: Replica, kernel: LogWritesKernel, at = kernel.atMark.length - 1): Promise<boolean> => (await readFile(replica.path(0))).equals(kernel.atMark[at]!);

async function follow(t: Test, kernel: LogWritesKernel, folder: string): Promise<void> {
  const replica = new Replica(folder, 1);
  const capture = captureOf(kernel, folder);
  const writer = startWriter(kernel);
  await firstSync(capture, replica);
  let exact = 0;
  for (let number = 1; number <= 25; number += 1) {
    const delta = await capture.cut(point(number - 1), point(number), 'crash');
    await replica.apply(delta);
    await delta.end('acknowledged');
    if (await holds(replica, kernel)) exact += 1;
  }
  t.equal(exact, 25, 'each point is what the device held at its instant');
  t.ok(await writer.stop() > 20, 'while it was written');
  t.equal(capture.figures().cycles, 25);
  await capture.close();
}

t.test('first sync and points, while the device is written', async (t) => {
  const folder = shortFolder(t);
  const kernel = await LogWritesKernel.onFiles(folder, deviceBytes);
  t.teardown(() => kernel.close());
  await follow(t, kernel, folder);
});

t.test('block devices, read past the page cache', { skip: process.getuid?.() !== 0 && 'needs root, for loop devices' }, async (t) => {
  const folder = shortFolder(t);
  const devices: string[] = [];
  for (const [name, bytes] of [['d', deviceBytes], ['l', 64 * 1024 * 1024]] as const) {
    await writeFile(join(folder, name), '');
    await truncate(join(folder, name), bytes);
    const device = execFileSync('losetup', ['-f', '--show', join(folder, name)], { encoding: 'utf8' }).trim();
    t.teardown(() => execFileSync('losetup', ['-d', device]));
    devices.push(device);
  }
  // The kernel writes beneath the devices, as the target does: their page cache knows nothing of it.
  const kernel = await LogWritesKernel.start(join(folder, 'd'), join(folder, 'l'));
  t.teardown(() => kernel.close());
  const [device, log] = devices as [string, string];
  await follow(t, Object.assign(Object.create(kernel) as LogWritesKernel, { devicePath: device, logPath: log, mark: (text: string) => kernel.mark(text), write: kernel.write.bind(kernel), discard: kernel.discard.bind(kernel), flush: kernel.flush.bind(kernel) }), folder);
});

t.test('a restart goes on from what the target holds', async (t) => {
  const folder = shortFolder(t);
  const kernel = await LogWritesKernel.onFiles(folder, deviceBytes);
  t.teardown(() => kernel.close());
  const replica = new Replica(folder, 1);
  let capture = captureOf(kernel, folder);
  await firstSync(capture, replica);
  await kernel.write(100, Buffer.alloc(4096, 1));
  const first = await capture.cut(point(0), point(1), 'crash');
  await replica.apply(first);
  await first.end('acknowledged');

  await kernel.write(200, Buffer.alloc(4096, 2));
  const second = await capture.cut(point(1), point(2), 'crash');
  await second.end('unknown');
  await capture.close();
  capture = captureOf(kernel, folder);
  await capture.connect();
  t.strictSame(await capture.reconcile(point(1)), { standing: 'ready' }, 'it did not arrive');
  const again = await capture.cut(point(1), point(2), 'crash');
  t.equal(again.changedBytes, 4096);
  await replica.apply(again);
  await again.end('unknown');
  await capture.close();
  capture = captureOf(kernel, folder);
  await capture.connect();
  t.strictSame(await capture.reconcile(point(2)), { standing: 'ready' }, 'it did arrive');
  await kernel.write(208, Buffer.alloc(512, 3));
  await kernel.mark('somebody’s');
  const third = await capture.cut(point(2), point(3), 'crash');
  t.equal(third.changedBytes, 512, 'nothing of it twice');
  await replica.apply(third);
  await third.end('dropped');
  const fourth = await capture.cut(point(2), point(3), 'crash');
  t.equal(fourth.changedBytes, 512, 'what was dropped comes again');
  await fourth.end('acknowledged');
  t.ok(await holds(replica, kernel));
  t.match(await capture.reconcile(point(2)), { standing: 'resync' }, 'a point that is past');
  t.match(await capture.reconcile({ term: 2, point: 3 }), { standing: 'resync' }, 'of another term');
  await capture.close();
});

t.test('another log is noticed, and so is one that goes no further', async (t) => {
  const folder = shortFolder(t);
  const kernel = await LogWritesKernel.onFiles(folder, deviceBytes);
  t.teardown(() => kernel.close());
  const replica = new Replica(folder, 1);
  const capture = captureOf(kernel, folder);
  await firstSync(capture, replica);
  await kernel.write(0, Buffer.alloc(8192, 7));
  await kernel.settled();
  const anew = await LogWritesKernel.onFiles(join(folder), deviceBytes);
  t.teardown(() => anew.close());
  const other = captureOf(anew, folder);
  await other.connect();
  t.match(await other.reconcile(point(0)), { standing: 'resync', why: /not the one/ });
  await anew.write(64, Buffer.alloc(1024, 9));
  await other.fullPass(sinkOf(replica), passOptions);
  await other.settlePass(point(0));
  const delta = await other.cut(point(0), point(1), 'crash');
  await replica.apply(delta);
  await delta.end('acknowledged');
  t.ok(await holds(replica, anew), 'compared, and on');

  anew.isFull = true;
  let nowMs = 0;
  const hasty = captureOf(anew, folder, { ...nodeClock, monotonicMs: () => { nowMs += 1000; return nowMs; } });
  await hasty.connect();
  t.strictSame(await hasty.reconcile(point(1)), { standing: 'ready' });
  await t.rejects(hasty.cut(point(1), point(2), 'crash'), { code: 'LOG_BROKEN', message: /did not come/ });
  for (const one of [capture, other, hasty]) await one.close();
  const absent = new DmLogCapture({ devicePath: anew.devicePath, logPath: join(folder, 'none'), notePath: join(folder, 'n'), clock: nodeClock, random: nodeRandom });
  await t.rejects(absent.connect(), { code: 'ENOENT' });
});

t.test('the device changes its size', async (t) => {
  const folder = shortFolder(t);
  const kernel = await LogWritesKernel.onFiles(folder, deviceBytes);
  t.teardown(() => kernel.close());
  const capture = captureOf(kernel, folder);
  await firstSync(capture, new Replica(folder, 1));
  await truncate(kernel.devicePath, deviceBytes * 2);
  const refused = await capture.cut(point(0), point(1), 'crash').catch((error: unknown) => error);
  t.ok(isFault(refused) && refused.code === 'GUEST_CHANGED');
  await capture.close();
});

t.test('a log on a device that held another one', async (t) => {
  const folder = shortFolder(t);
  const before = await LogWritesKernel.onFiles(folder, deviceBytes);
  for (let index = 0; index < 200; index += 1) await before.write(index * 8, Buffer.alloc(512 * (1 + index % 5), 'old '), index % 3 === 0 ? 2 : 0);
  await before.mark('old');
  await before.close();
  const old = await readFile(before.logPath);
  const kernel = await LogWritesKernel.start(before.devicePath, before.logPath, old);
  t.teardown(() => kernel.close());
  await follow(t, kernel, folder);
});
