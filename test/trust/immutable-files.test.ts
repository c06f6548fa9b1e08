/** Files that locked points need, on the machine's own disk: nobody removes or changes them, the product goes on appending and merging, and the attribute goes with the lock, also after a crash. */
import { appendFile, mkdtemp, readdir, rename, rm, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { MemoryLevel } from 'memory-level';
import { nodeDisk } from '../../host/node/disk.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { announce, applied, RandomGuest, realStore, seed, sendPoint } from '../points/history-oracle.ts';
import { groupId } from '../store/model-guest.ts';
import { smallOptions } from '../store/store-rig.ts';

const hourMs = 3_600_000;

async function folderOf(t: { teardown(act: () => Promise<void>): void }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'immutable-'));
  t.teardown(async () => {
    for (const name of await readdir(folder, { recursive: true, withFileTypes: true })) if (name.isFile()) await nodeDisk.setImmutable!(join(name.parentPath, name.name), false);
    await rm(folder, { recursive: true });
  });
  return folder;
}

/** Why not, or false. */
async function cannot(folder: string): Promise<string | false> {
  const probe = await nodeDisk.open(join(folder, 'probe'), 'create');
  await probe.close();
  const isSet = await nodeDisk.setImmutable!(join(folder, 'probe'), true);
  await nodeDisk.remove(join(folder, 'probe'));
  return isSet ? false : 'this file system, or this user, has no immutable attribute';
}

t.test('the attribute comes with a lock and goes with it', async (t) => {
  const folder = await folderOf(t);
  const why = await cannot(folder);
  if (why !== false) { t.pass(`skipped: ${why}`); return; }
  const [clock, guest] = [new SimulatedClock(), new RandomGuest(21)];
  const policy = { windowMs: hourMs, hourly: 0, daily: 0, weekly: 0, monthly: 0, budgetBytes: null };
  const open = async (): Promise<{ registry: GroupRegistry; store: FileGroupStore }> => {
    const registry = await openRegistry({ disk: nodeDisk, clock, folder: join(folder, 'groups'), catalog: () => new MemoryLevel<string, string>(), options: { ...smallOptions, batchBytes: 1, retentionOf: () => policy } });
    return { registry, store: realStore(await announce(registry, guest.model)) };
  };
  let { registry, store } = await open();
  await seed(store, guest.model);
  const live = async (points: number): Promise<void> => {
    for (let point = 0; point < points; point++) {
      clock.advance(hourMs / 4);
      await sendPoint(store, registry, guest);
    }
    await applied(store);
    await store.retention!.settle();
    await store.history.removed();
  };
  await live(6);
  await store.restorePoints.lock({ term: 1, point: 3 }, 'a test', 24 * hourMs, false);
  await store.retention!.settle();
  t.match(store.report().locked, { isImmutable: true });
  const history = join(folder, 'groups', groupId, 'history');
  const locked = join(history, (await readdir(history)).find((name) => /-1\.4\.undo$/.test(name))!);
  await t.rejects(unlink(locked), { code: 'EPERM' });
  await t.rejects(appendFile(locked, 'x'), { code: 'EPERM' });
  await t.rejects(rename(locked, `${locked}.gone`), { code: 'EPERM' });

  await live(12);
  t.ok((await store.restorePoints.list()).some(({ point }) => point === 3), 'merged and appended beside it');
  t.ok((await store.restorePoints.list()).length < 18, 'and thinned');
  await registry.close();
  ({ registry, store } = await open());
  await live(2);
  t.ok((await store.restorePoints.list()).some(({ point }) => point === 3));

  clock.advance(25 * hourMs);
  await live(2);
  t.notOk((await store.restorePoints.list()).some(({ point }) => point === 3), 'given up when the lock was over');
  t.equal(store.report().locked, undefined);
  for (const name of await readdir(history)) await t.resolves(rename(join(history, name), join(history, name)).then(() => appendFile(join(history, name), '')), `${name} is like any other`);
  await registry.close();
});

t.test('what a crash left of the attribute goes at the next start', async (t) => {
  const folder = await folderOf(t);
  const why = await cannot(folder);
  if (why !== false) { t.pass(`skipped: ${why}`); return; }
  const path = join(folder, 'file');
  await (await nodeDisk.open(path, 'create')).close();
  await nodeDisk.setImmutable!(path, true);
  await t.rejects(unlink(path), { code: 'EPERM' });
  await nodeDisk.remove(path);
  await t.rejects(unlink(path), { code: 'ENOENT' }, 'whoever may remove it takes the attribute off first');
});
