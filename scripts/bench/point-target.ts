/**
 * A target that serves the points of a group that is there already, a process of its own: the product's store and exports put
 * together as replica-target/target.ts does, on a unix socket. Asked by driven-roles.ts.
 */
import { nodeClock } from '../../host/node/clock.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { NbdExports } from '../../replica-target/points/nbd-exports.ts';
import { FileGroupStore } from '../../replica-target/store/group-store.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import type { PointTargetEvent, PointTargetFacts } from './driven-roles.ts';

const { groupsFolder, socketPath } = JSON.parse(process.argv[2]!) as PointTargetFacts;
collectSeldom();
const fromMs = performance.now();
const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: groupsFolder });
const openMs = performance.now() - fromMs;
const [store] = registry.groups();
if (!(store instanceof FileGroupStore)) throw new Error(`the group cannot be used: ${store?.report().held?.message ?? 'there is none'}`);
const { digests } = store.restorePoints;
await digests.idle();
const idleMs = performance.now() - fromMs;
const exported = registry.groups().map((group) => ({ groupId: group.groupId, name: group.report().name, points: group.restorePoints }));
const groups = { all: () => exported, find: (nameOrId: string) => exported.find((group) => group.name === nameOrId || group.groupId === nameOrId) ?? null };
await listenNbd({ path: socketPath, exports: new NbdExports(groups, nodeClock, (fault) => { throw fault; }), onFault: () => undefined });

function tell(event: PointTargetEvent): void {
  process.send?.(event);
}

process.on('message', () => tell({ event: 'memory', rssBytes: process.memoryUsage().rss, cacheBytes: digests.cacheBytes }));
process.on('disconnect', () => process.exit());
tell({ event: 'ready', openMs, idleMs, digestCount: digests.count, digestBytes: digests.sizeBytes, fileCount: store.history.count, historyBytes: store.history.totalBytes });
