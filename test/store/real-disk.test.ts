/** The store on the real disk, with the real catalog: sparse replicas, restarts, and a process that was killed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { ModelGuest, seedRecord, sourceId } from './model-guest.ts';
import { appendAll, contentFault } from './store-rig.ts';

const MiB = 1024 * 1024;
const folder = await mkdtemp(join(tmpdir(), 'ai-store-'));
t.teardown(() => rm(folder, { recursive: true }));

function open(name: string): Promise<GroupRegistry> {
  return openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(folder, name), options: { segmentBytes: 4 * MiB, journalKeepBytes: 8 * MiB, batchBytes: 4 * MiB } });
}

t.test('sync, points, restart, comparison, resize, a disk more', async (t) => {
  const guest = new ModelGuest([64 * MiB]);
  let registry = await open('groups');
  let store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await Promise.all(Array.from({ length: 8 }, (_, i) => {
    const bytes = Buffer.alloc(MiB, i + 1);
    bytes.copy(guest.disks[0]!, i * 4 * MiB);
    return store.seedRecord(seedRecord(0, i * 4 * MiB, bytes, 0xaan));
  }));
  guest.snapshots.set('0.0', [Buffer.from(guest.disks[0]!)]);
  await store.seedEnd();
  const image = store.report().disks[0]!.replicaPath;
  t.equal((await stat(image)).size, 64 * MiB);
  t.ok((await stat(image)).blocks * 512 < 10 * MiB, 'sparse stays sparse');
  for (let i = 1; i <= 12; i++) {
    guest.write(0, i * 3 * MiB + 512, Buffer.alloc(MiB, 100 + i));
    guest.zero(0, ((i - 1) % 8) * 4 * MiB, MiB / 2);
    t.same(await appendAll(store, guest.cut({ isCompressed: i % 2 === 0, ...(i === 5 ? { runsPerPart: 1 } : {}) })), { term: 1, point: i });
    if (i === 6) {
      await registry.close();
      registry = await open('groups');
      store = registry.find('vm1')!;
    }
  }
  guest.disks.push(Buffer.alloc(2 * MiB));
  guest.resize(0, 48 * MiB);
  await store.announce(sourceId, guest.announcement({ disks: [{ disk: 0, name: 'drive0', sizeBytes: 64 * MiB }, { disk: 1, name: 'drive1', sizeBytes: 2 * MiB }] }));
  guest.write(1, MiB, Buffer.alloc(MiB, 9));
  await appendAll(store, guest.cut());
  const points = (await store.points()).length;
  t.same(await store.drain(), { term: 1, point: 13 });
  t.equal(contentFault([await readFile(image), await readFile(store.report().disks[1]!.replicaPath)], guest, guest.newest), null);
  t.ok(points > 5 && store.report().historyBytes > MiB, `${points} points`);
  await t.rejects(open('groups'), { code: 'STORE_LOCKED' });
  await registry.close();
  registry = await open('groups');
  t.match(registry.find('vm1')!.holding(), { newest: { point: 13 }, applied: { point: 13 } });
  await registry.forget(registry.find('vm1')!.groupId);
  t.equal(registry.groups().length, 0);
  await t.rejects(stat(image), { code: 'ENOENT' });
  await registry.close();
});

t.test('an image is copied sparsely', async (t) => {
  const path = join(folder, 'old.raw');
  await (await nodeDisk.open(path, 'create')).close();
  await truncate(path, 32 * MiB);
  const file = await nodeDisk.open(path, 'readWrite');
  await file.write(Buffer.alloc(MiB, 5), 8 * MiB);
  await file.close();
  const registry = await open('copies');
  const store = await registry.announce(sourceId, new ModelGuest([32 * MiB]).announcement());
  await registry.seedFrom('vm1', 0, path);
  const copy = store.report().disks[0]!.replicaPath;
  t.ok((await stat(copy)).blocks * 512 < 2 * MiB);
  t.ok((await readFile(copy)).equals(await readFile(path)));
  await registry.close();
});

t.test('a process that was killed holds no lock', async (t) => {
  const lock = join(folder, 'killed');
  const program = `
    import { nodeDisk } from ${JSON.stringify(new URL('../../host/node/disk.ts', import.meta.url).href)};
    await nodeDisk.lock(${JSON.stringify(lock)});
    console.log('locked');
    setInterval(() => undefined, 1000);
  `;
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await t.rejects(nodeDisk.lock(lock), { code: 'EWOULDBLOCK' });
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  await (await nodeDisk.lock(lock)).release();
});
