/** The stand-in guest of the benchmark "ransomware": what is done on its file system reaches its disk, and nothing of it outlives an interruption. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Site, until } from '../../scripts/bench/site.ts';
import { startGuest } from '../../scripts/bench/ransomware/guest.ts';

const isPossible = process.getuid?.() === 0 && existsSync('/dev/fuse') && existsSync('/dev/loop-control');

t.test('a load that is interrupted leaves no mount, no loop device, no process, no folder', { skip: isPossible ? false : 'needs root, FUSE and loop devices' }, async (t) => {
  const folder = t.testdir();
  mkdirSync(join(folder, 'root', 'tree'), { recursive: true });
  for (let file = 0; file < 300; file++) writeFileSync(join(folder, 'root', 'tree', `${file}`), 'plain text\n'.repeat(1000));
  writeFileSync(join(folder, 'root', 'var.base'), 'a line of a log\n'.repeat(2000));
  const image = join(folder, 'guest.raw');
  execFileSync('truncate', ['-s', '64M', image]);
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', join(folder, 'root'), image]);

  const site = await Site.open();
  t.teardown(() => site.clear());
  const stand = await startGuest(site, image);
  const guest = await stand.begin('in-place', 1, folder);
  await until('the load begins', () => guest.firstMs(), { running: guest.load, limitMs: 60_000 });
  const loops = (): string => execFileSync('losetup', ['--all', '--output', 'BACK-FILE'], { encoding: 'utf8' });
  t.match(loops(), site.folder, 'the guest is mounted');
  t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), site.folder, 'and not where anybody else sees it');
  const plain = Buffer.from('plain text\n'.repeat(300));
  const intact = (): number => readFileSync(image).toString('latin1').split(plain.toString()).length - 1;
  const before = intact();
  await until('files are encrypted on the disk', () => intact() < before, { running: guest.load, limitMs: 60_000, everyMs: 100 });

  await site.clear();
  t.throws(() => statSync(site.folder), { code: 'ENOENT' });
  await until('the kernel has let go of the loop device', () => !loops().includes(site.folder));
  t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), site.folder);
});
