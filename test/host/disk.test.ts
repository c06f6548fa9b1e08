/** The real disk against the real file system of the temporary folder: holes, preallocation, gathered writes, locks. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { nodeDisk } from '../../host/node/disk.ts';

const folder = await mkdtemp(join(tmpdir(), 'ai-disk-'));
t.teardown(() => rm(folder, { recursive: true }));

t.test('holes are seen, made and read as zero', async (t) => {
  const file = await nodeDisk.open(join(folder, 'holes'), 'create');
  await file.truncate(8 * 1024 * 1024);
  t.equal(await file.nextData(0), null, 'a file without data has none');
  await file.write(Buffer.alloc(1024 * 1024, 7), 2 * 1024 * 1024);
  t.same(await file.nextData(0), { start: 2 * 1024 * 1024, end: 3 * 1024 * 1024 });
  const before = await file.allocatedBytes();
  await file.punch(2 * 1024 * 1024, 512 * 1024);
  t.same(await file.nextData(0), { start: 2.5 * 1024 * 1024, end: 3 * 1024 * 1024 });
  t.ok(await file.allocatedBytes() < before);
  t.equal(await file.sizeBytes(), 8 * 1024 * 1024, 'punching keeps the size');
  const into = Buffer.alloc(1024 * 1024, 1);
  t.equal(await file.read(into, 0, into.length, 2 * 1024 * 1024), into.length);
  t.ok(into.subarray(0, 512 * 1024).every((byte) => byte === 0));
  t.ok(into.subarray(512 * 1024).every((byte) => byte === 7));
  await file.close();
});

t.test('preallocation takes space and reads as zero; what was there stays', async (t) => {
  const file = await nodeDisk.open(join(folder, 'preallocated'), 'create');
  await file.write(Buffer.from('here'), 0);
  await file.preallocate(4 * 1024 * 1024);
  t.equal(await file.sizeBytes(), 4 * 1024 * 1024);
  t.ok(await file.allocatedBytes() >= 4 * 1024 * 1024);
  const into = Buffer.alloc(8);
  await file.read(into, 0, 8, 0);
  t.equal(into.toString('latin1'), 'here\0\0\0\0');
  await file.sync();
  await file.close();
});

t.test('many buffers land back to back, more than one writev takes', async (t) => {
  const file = await nodeDisk.open(join(folder, 'many'), 'create');
  const buffers = Array.from({ length: 2500 }, (_, i) => Buffer.alloc(1 + (i % 3), i % 251));
  await file.writeMany(buffers, 5);
  const whole = Buffer.concat(buffers);
  const into = Buffer.alloc(whole.length + 10);
  t.equal(await file.read(into, 0, into.length, 5), whole.length, 'a read ends at the end of the file');
  t.ok(into.subarray(0, whole.length).equals(whole));
  await file.close();
});

t.test('errors carry their code, also with many calls under way', async (t) => {
  const file = await nodeDisk.open(join(folder, 'errors'), 'create');
  await file.truncate(4096);
  const outcomes = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    if (i % 2 === 0) return file.nextData(0);
    return file.punch(-1, 4096).then(() => 'no error', (error: NodeJS.ErrnoException) => error.code);
  }));
  t.same(outcomes, Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? null : 'EINVAL')));
  await file.close();
  await t.rejects(nodeDisk.open(join(folder, 'errors'), 'create'), { code: 'EEXIST' });
  await t.rejects(nodeDisk.open(join(folder, 'nothing'), 'readWrite'), { code: 'ENOENT' });
  await t.rejects(nodeDisk.list(join(folder, 'nothing')), { code: 'ENOENT' });
});

t.test('a lock is held by one', async (t) => {
  const path = join(folder, 'lock');
  const lock = await nodeDisk.lock(path);
  await t.rejects(nodeDisk.lock(path), { code: 'EWOULDBLOCK' });
  await lock.release();
  await (await nodeDisk.lock(path)).release();
});

t.test('folders come and go', async (t) => {
  const path = join(folder, 'sub');
  await nodeDisk.makeFolder(path);
  await (await nodeDisk.open(join(path, 'a'), 'create')).close();
  await nodeDisk.syncFolder(path);
  await t.rejects(nodeDisk.remove(path), { code: 'ENOTEMPTY' });
  await nodeDisk.rename(join(path, 'a'), join(path, 'b'));
  t.same(await nodeDisk.list(path), ['b']);
  await nodeDisk.remove(join(path, 'b'));
  await nodeDisk.remove(path);
  t.ok(await nodeDisk.freeBytes(folder) > 0);
});

t.test('what is in memory is read at once, or not at all', async (t) => {
  const path = `${t.testdir()}/cached`;
  const file = await nodeDisk.open(path, 'create');
  await file.write(Buffer.alloc(8192, 7), 0);
  const into = Buffer.alloc(4096);
  const read = file.readNow!(into, 4096, 4096);
  t.ok(read === null || (read === 4096 && into.every((byte) => byte === 7)), `${read} bytes`);
  t.ok([null, 0].includes(file.readNow!(into, 4096, 8192)), 'nothing behind the end');
  await file.close();
});

t.test('an image is kept from those who would write to it, as QEMU locks images', async (t) => {
  const path = join(folder, 'image.raw');
  const file = await nodeDisk.open(path, 'create');
  await file.truncate(1024 * 1024);
  t.equal(file.barWriters!(true), true);
  await t.rejects(qemuIo(path, 'write 0 4k'), { message: /Failed to get "write" lock/ });
  await qemuIo(path, 'read 0 4k', '-r');
  file.barWriters!(false);
  await qemuIo(path, 'write 0 4k');
  t.equal(file.barWriters!(true), true);
  await file.close();
  await qemuIo(path, 'write 0 4k');

  const writer = spawn('qemu-io', ['-f', 'raw', path], { stdio: ['pipe', 'pipe', 'ignore'] });
  t.teardown(() => { writer.kill('SIGKILL'); });
  // It prompts when it has the image open.
  await once(writer.stdout, 'data');
  const other = await nodeDisk.open(path, 'readWrite');
  t.equal(other.barWriters!(true), false, 'somebody writes to it already');
  const ended = once(writer, 'exit');
  writer.stdin.end();
  await ended;
  t.equal(other.barWriters!(true), true);
  await other.close();
});

function qemuIo(path: string, command: string, ...options: readonly string[]): Promise<unknown> {
  return promisify(execFile)('qemu-io', ['-f', 'raw', ...options, '-c', command, path], { timeout: 20_000 });
}

/** statfs(2): TMPFS_MAGIC */
const isMemory = (await statfs(folder)).type === 0x0102_1994;

t.test('what is durable leaves the memory when it is told to, and is read from the disk after that', { skip: isMemory ? 'the temporary folder is in memory' : false }, async (t) => {
  const file = await nodeDisk.open(join(folder, 'dropped'), 'create');
  const [bytes, into] = [Buffer.alloc(1024 * 1024, 5), Buffer.alloc(4096)];
  await file.write(bytes, 0);
  await file.sync();
  t.equal(file.readNow?.(into, into.length, 8192), into.length, 'in memory');
  file.dropCached?.(0, bytes.length);
  await file.close();
  const again = await nodeDisk.open(join(folder, 'dropped'), 'read');
  t.not(again.readNow?.(into, into.length, 8192), into.length, 'not any more');
  t.equal(await again.read(bytes, 0, bytes.length, 0), bytes.length);
  t.ok(bytes.every((byte) => byte === 5));
  await again.close();
});

t.test('a file is closed when what is under way has ended, and takes nothing after that', async (t) => {
  const file = await nodeDisk.open(join(folder, 'closed'), 'create');
  const writes = Array.from({ length: 64 }, (_, i) => file.write(Buffer.alloc(65_536, i), i * 65_536));
  await file.close();
  await Promise.all(writes);
  await t.rejects(file.write(Buffer.alloc(1), 0), { code: 'EBADF' });
  await t.rejects(file.read(Buffer.alloc(1), 0, 1, 0), { code: 'EBADF' });
  const again = await nodeDisk.open(join(folder, 'closed'), 'read');
  t.equal(await again.sizeBytes(), 64 * 65_536);
  await again.close();
});
