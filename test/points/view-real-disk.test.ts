import { join } from 'node:path';
import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { announce, applied, checkAllPoints, RandomGuest, realStore, seed, sendPoint } from './history-oracle.ts';

t.test('on a real disk every restorable point is what the model says', async (t) => {
  for (const number of [71, 72, 73]) {
    const guest = new RandomGuest(number);
    const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(t.testdir(), 'groups'), options: { segmentBytes: 64 * 1024, journalKeepBytes: 64 * 1024, batchBytes: 8 * 1024 } });
    const store = realStore(await announce(registry, guest.model));
    await seed(store, guest.model);
    for (let point = 0; point < 40; point++) await sendPoint(store, registry, guest);
    t.ok(await checkAllPoints(store, guest) > 0, 'while it is applied');
    await applied(store);
    await store.restorePoints.digests.idle();
    t.ok(await checkAllPoints(store, guest) > 0, 'and afterwards');
    await registry.close();
  }
});
