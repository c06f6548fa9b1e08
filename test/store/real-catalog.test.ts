/** The catalog in level on the real disk: deleted, or its files overwritten, it is made anew and every point is there as before. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { ModelGuest, groupId, sourceId } from './model-guest.ts';
import { appendAll } from './store-rig.ts';

const KiB = 1024;

t.test('deleted, and damaged', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'afterimage-catalog-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const open = () => openRegistry({ disk: nodeDisk, clock: nodeClock, folder, options: { segmentBytes: 256 * KiB } });
  let registry = await open();
  const guest = new ModelGuest([256 * KiB]);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (let point = 1; point <= 5; point++) {
    guest.write(0, 0, Buffer.alloc(8 * KiB, point));
    await appendAll(store, guest.cut());
    await store.compare(0, 0, 512, 512, Buffer.alloc(32));
  }
  const before = await store.points();
  t.equal(before.length, 5);
  await registry.close();
  const catalog = join(folder, groupId, 'catalog');
  const spoilt: readonly (readonly [string, () => Promise<void>])[] = [
    ['deleted', () => rm(catalog, { recursive: true })],
    ['overwritten', async () => { for (const name of await readdir(catalog)) await writeFile(join(catalog, name), Buffer.alloc(300, 0x5a)); }],
    ['in part', async () => { for (const name of await readdir(catalog)) if (/\.(log|ldb)$/.test(name)) await writeFile(join(catalog, name), Buffer.alloc(300, 0x5a)); }],
    ['overwritten again', async () => { for (const name of await readdir(catalog)) if (name === 'CURRENT') await writeFile(join(catalog, name), 'MANIFEST-999999\n'); }],
  ];
  for (const [how, spoil] of spoilt) {
    await spoil();
    registry = await open();
    const reopened = registry.find('vm1')!;
    t.equal(reopened.report().held, null, how);
    t.same(await reopened.points(), before, how);
    await registry.close();
  }
});
