/**
 * A target's store that takes deltas as fast as it applies them, a process of its own, so that what it writes can be told. Time
 * runs faster here, a minute to a point: so that hours end, and are thinned, within the run. Asked by apply.ts.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { nodeClock } from '../../host/node/clock.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { defaultRetention } from '../../replica-target/points/retention-plan.ts';
import { FileGroupStore } from '../../replica-target/store/group-store.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { Applied, ApplyFacts } from './apply.ts';
import { Deltas, term, untilApplied } from './point-history.ts';

/** Points that may wait to be applied: more would be a backlog. */
const backlogMax = 16;
const pointMs = 60_000;
const speedUp = 60;

const { groupsFolder, sizeBytes, pointBytes, writeBytes, seconds } = JSON.parse(process.argv[2]!) as ApplyFacts;
collectSeldom();
let count = 0;
const startMs = Date.now();
const clock = { ...nodeClock, nowMs: () => startMs + count * pointMs, delay: (ms: number, signal?: AbortSignal) => nodeClock.delay(ms / speedUp, signal) };
const registry = await openRegistry({ disk: nodeDisk, clock, folder: groupsFolder, options: { retentionOf: () => ({ ...defaultRetention, windowMs: 0 }) } });
const groupId = randomBytes(16).toString('hex');
const store = await registry.announce(randomBytes(16).toString('hex'), { group: groupId, name: 'guest', term, rpoMs: 1000, hardware: {}, disks: [{ disk: 0, name: 'vda', sizeBytes }] });
if (!(store instanceof FileGroupStore)) throw new Error('the group has no store of files');
await store.seedBegin('00000000000000aa');
await store.seedEnd();
const deltas = new Deltas({ sizeBytes, pointBytes, writeBytes }, groupId);
const send = async (isWhole: boolean): Promise<void> => {
  await Promise.all(deltas.next(isWhole).map((record) => store.append(record)));
  count += 1;
};
// Every byte is overwritten afterwards: a disk of zeroes would have before-images that take no space.
await send(true);
await untilApplied(store);

let mergedBytes = 0;
store.history.listen({ replaced: (_, merged) => { mergedBytes += merged?.sizeBytes ?? 0; } });
const [before, fromMs, first] = [writtenBytes(), performance.now(), count];
while (performance.now() - fromMs < seconds * 1000) {
  await send(false);
  while (count - (store.report().applied?.point ?? 0) > backlogMax) await nextApplied();
}
await untilApplied(store);
const appliedSeconds = (performance.now() - fromMs) / 1000;
// What is merged and levelled behind it belongs to the bytes, not to the rate.
await store.retention?.settle();
await store.restorePoints.digests.idle();
const applied: Applied = { seconds: appliedSeconds, points: count - first, changedBytes: (count - first) * pointBytes, writtenBytes: writtenBytes() - before, mergedBytes, historyFiles: store.history.count };
await registry.close();
process.stdout.write(`${JSON.stringify(applied)}\n`);

function nextApplied(): Promise<void> {
  return new Promise((resolve) => {
    const stop = store.onApplied(() => {
      stop();
      resolve();
    });
  });
}

/** Bytes that this process gave to write calls (proc(5), wchar): files alone, it has no sockets. */
function writtenBytes(): number {
  return Number(/^wchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))![1]);
}
