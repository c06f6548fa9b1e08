/** A target's store that thins a history that is there already, a process of its own, so that its memory can be told. Asked by retention.ts. */
import { writeFileSync } from 'node:fs';
import { nodeClock } from '../../host/node/clock.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { defaultRetention, type RetentionPolicy } from '../../replica-target/points/retention-plan.ts';
import { FileGroupStore } from '../../replica-target/store/group-store.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { peakMib } from './process-usage.ts';
import type { ThinningFacts, Thinned } from './retention.ts';

const { groupsFolder } = JSON.parse(process.argv[2]!) as ThinningFacts;
collectSeldom();
// First as a target that has kept everything; it thins when it is told to, not by itself.
let policy: RetentionPolicy = { ...defaultRetention, windowMs: Number.MAX_SAFE_INTEGER };
const clock = { ...nodeClock, delay: (_: number, signal?: AbortSignal) => new Promise<void>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error))) };
const registry = await openRegistry({ disk: nodeDisk, clock, folder: groupsFolder, options: { retentionOf: () => policy } });
const [store] = registry.groups();
if (!(store instanceof FileGroupStore)) throw new Error(`the group cannot be used: ${store?.report().held?.message ?? 'there is none'}`);
const { retention, history, restorePoints } = store;
if (retention === null) throw new Error('the store has no retention');
await restorePoints.digests.idle();
const before = { files: history.count, bytes: history.totalBytes };
let readBytes = 0;
let mergeCount = 0;
history.listen({ replaced: (removed) => {
  readBytes += removed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  mergeCount += 1;
} });
const openedMib = peakMib(process.pid);
// From here on the kernel's high-water mark begins anew (proc(5)).
writeFileSync('/proc/self/clear_refs', '5');
policy = { ...defaultRetention, windowMs: 0 };
const fromMs = performance.now();
await retention.settle();
await history.removed();
const seconds = (performance.now() - fromMs) / 1000;
const thinned: Thinned = { seconds, readBytes, mergeCount, peakMib: peakMib(process.pid), openedMib, before, after: { files: history.count, bytes: history.totalBytes } };
await registry.close();
process.stdout.write(`${JSON.stringify(thinned)}\n`);
