/** Folders and files that a local user has prepared: links where ours are to be written, folders that others may write to, files of loose modes. */
import { chmod, chown, lstat, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { z } from 'zod';
import { writeExport } from '../../console/export/write-export.ts';
import { SourceState } from '../../daemon/source-state.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { preparePrivateFolder } from '../../host/node/private-folder.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import { TargetState } from '../../replica-target/target-state.ts';
import { described } from '../console/fixed-reports.ts';

const unsafe = { code: 'FOLDER_UNSAFE' };
/** Nobody of this machine. */
const stranger = 54_321;
const isRoot = process.geteuid?.() === 0;

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'af-places-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

t.test('a data folder that others may write to, or that is another user’s', async (t) => {
  const at = await folder(t);
  const data = join(at, 'data');
  await preparePrivateFolder(data);
  t.equal((await stat(data)).mode & 0o777, 0o700, 'made for its owner alone');
  await chmod(data, 0o755);
  await preparePrivateFolder(data);
  t.pass('others may look: each file is 0600');
  const umask = process.umask(0o077);
  try {
    await preparePrivateFolder(join(at, 'a/b/spool'), 0o711);
  } finally {
    process.umask(umask);
  }
  for (const made of ['a', 'a/b', 'a/b/spool']) t.equal((await stat(join(at, made))).mode & 0o777, 0o711, 'passed through whatever the umask of the service is');
  for (const mode of [0o775, 0o757, 0o1777]) {
    await chmod(data, mode);
    await t.rejects(preparePrivateFolder(data), unsafe, mode.toString(8));
    await t.rejects(new TargetState(data).prepare(), unsafe);
    await t.rejects(new SourceState(data).prepare(), unsafe);
    t.same(await readdir(data), [], 'nothing was written there');
  }
  await chmod(data, 0o700);
  await writeFile(join(at, 'file'), '');
  await t.rejects(preparePrivateFolder(join(at, 'file')), { code: /^(FOLDER_UNSAFE|EEXIST|ENOTDIR)$/ });
  await symlink(data, join(at, 'link'));
  await preparePrivateFolder(join(at, 'link'));
  t.pass('a link of our own leads to the large volume');
  if (!isRoot) return t.comment('what belongs to others can only be made by root');
  await chown(data, stranger, stranger);
  await t.rejects(preparePrivateFolder(data), unsafe, 'another user’s folder');
  await chown(data, 0, 0);
  await rm(join(at, 'link'));
  await symlink(data, join(at, 'theirs'));
  // `lchown`: of the link itself.
  const { lchown } = await import('node:fs/promises');
  await lchown(join(at, 'theirs'), stranger, stranger);
  await t.rejects(preparePrivateFolder(join(at, 'theirs')), unsafe, 'another user’s link');
});

t.test('a folder of groups, or of pairings, that is a link of somebody else’s making', async (t) => {
  const at = await folder(t);
  const elsewhere = join(at, 'elsewhere');
  await mkdir(elsewhere, { mode: 0o777 });
  await chmod(elsewhere, 0o777);
  for (const [name, prepare] of [['groups', (path: string) => new TargetState(path).prepare()], ['targets', (path: string) => new SourceState(path).prepare()]] as const) {
    const data = join(at, `data-of-${name}`);
    await mkdir(data, { mode: 0o700 });
    await symlink(elsewhere, join(data, name));
    await t.rejects(prepare(data), unsafe, name);
  }
  t.same(await readdir(elsewhere), []);
});

t.test('private files are never written through what lies in their place, nor read from it', async (t) => {
  const at = await folder(t);
  const path = join(at, 'pairings.json');
  const precious = join(at, 'precious');
  await writeFile(precious, 'precious');
  await symlink(precious, `${path}.new`);
  await replaceJson(path, { secret: 1 });
  t.equal(await readFile(precious, 'utf8'), 'precious', 'a planted link is not followed');
  t.equal((await lstat(path)).mode & 0o777, 0o600);
  await writeFile(`${path}.new`, '', { mode: 0o666 });
  await chmod(`${path}.new`, 0o666);
  await replaceJson(path, { secret: 2 });
  t.equal((await lstat(path)).mode & 0o777, 0o600, 'a planted file’s mode is not kept');
  const shape = z.object({ secret: z.number() });
  t.same(await readJson(path, shape), { secret: 2 });
  for (const mode of [0o640, 0o604, 0o620]) {
    await chmod(path, mode);
    await t.rejects(readJson(path, shape), { code: 'CONFIG_INVALID', message: /must be 600/ }, mode.toString(8));
  }
  await chmod(path, 0o600);
  await symlink(path, join(at, 'link.json'));
  await t.rejects(readJson(join(at, 'link.json'), shape), { code: 'CONFIG_INVALID', message: /symbolic link/ });
  t.equal(await readJson(join(at, 'none.json'), shape), null);
  if (!isRoot) return;
  await chown(path, stranger, stranger);
  await t.rejects(readJson(path, shape), { code: 'CONFIG_INVALID', message: /belongs to user/ });
});

t.test('a socket is not put in the place of a file, nor through a link', async (t) => {
  const at = await folder(t);
  const precious = join(at, 'precious');
  const listen = (path: string) => listenNbd({ path, exports: new Map(), onFault: () => undefined });
  await writeFile(precious, 'precious');
  await t.rejects(listen(precious), { code: 'EADDRINUSE' });
  await symlink(precious, join(at, 'link'));
  await t.rejects(listen(join(at, 'link')), { code: 'EADDRINUSE' });
  await symlink(join(at, 'nowhere'), join(at, 'dangling'));
  await t.rejects(listen(join(at, 'dangling')), { code: 'EADDRINUSE' });
  t.equal(await readFile(precious, 'utf8'), 'precious');
  t.notOk((await readdir(at)).includes('nowhere'));
});

t.test('an export into a folder that many may write to', async (t) => {
  const at = await folder(t);
  await chmod(at, 0o1777);
  const attempt = () => writeExport(described, 'raw', at, join(at, 'no-socket'), new AbortController().signal, () => undefined);
  const part = join(at, 'web-1.2-raw.part');
  const kept = join(at, 'kept');
  await mkdir(kept);
  await writeFile(join(kept, 'precious'), 'precious');
  await symlink(kept, part);
  await t.rejects(attempt(), { code: 'EXPORT_FAILED' });
  t.same(await readdir(kept), ['precious'], 'what a planted link leads to is not taken for what is left of an earlier attempt');
  await rm(part);
  await mkdir(part);
  await chmod(part, 0o777);
  await writeFile(join(part, 'precious'), 'precious');
  await t.rejects(attempt(), { code: 'EXPORT_FAILED', message: /others may write to it/ });
  t.same(await readdir(part), ['precious']);
  if (isRoot) {
    await chmod(part, 0o700);
    await chown(part, stranger, stranger);
    await t.rejects(attempt(), { code: 'EXPORT_FAILED', message: /others may write to it/ }, 'somebody else’s folder');
  }
});
