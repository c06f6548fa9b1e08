/**
 * What the guests of the benchmark "ransomware" hold and are given: real files of this machine. Made once in a folder: a file
 * system image that is a guest's disk, fresh or used (its free space full of what deleted files held), and what loads unpack.
 */
import { execFile } from 'node:child_process';
import { copyFile, cp, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const mib = 1024 * 1024;
/** Of the guest's own tree, and of each thing that loads unpack. */
const treeBytes = 150 * mib;
const mediaBytes = 110 * mib;
const debsBytes = 50 * mib;

export interface Material { readonly folder: string; readonly freshImage: string; readonly usedImage: string; readonly facts: Readonly<Record<string, number>> }

/** What an earlier call left in the folder is taken as it is: making it takes minutes, and it is only read. */
export async function makeMaterial(folder: string, diskBytes: number): Promise<Material> {
  const madePath = join(folder, `made-${diskBytes}.json`);
  const made = await readFile(madePath, 'utf8').catch(() => null);
  if (made !== null) return JSON.parse(made) as Material;
  const [root, tree, media, debs] = [join(folder, 'root'), join(folder, 'root', 'tree'), join(folder, 'media'), join(folder, 'debs')];
  for (const each of [tree, media, debs]) await mkdir(each, { recursive: true });
  const inTree = await gather(['/usr/share/doc', '/usr/share/perl', '/usr/lib/python3', '/usr/lib/x86_64-linux-gnu', '/usr/share/man', '/usr/bin'], () => true, tree, treeBytes);
  const isMedia = (name: string): boolean => /\.(png|jpe?g|webp|woff2?|mp[34]|webm|ogg|flac|jar|zip|whl)$/i.test(name);
  const inMedia = await gather(['/usr/share', '/usr/lib', '/opt', '/root', '/home', '/var/lib'], isMedia, media, mediaBytes);
  const inDebs = await gather(['/var/cache', '/root', '/opt', '/home', '/usr', '/var/lib'], (name) => name.endsWith('.deb'), debs, debsBytes);
  if (inMedia.bytes < mediaBytes / 4) throw new Error(`this machine has too few compressed files to measure with: ${Math.round(inMedia.bytes / mib)} MiB`);
  // Where there are no packages, one is made, as dpkg makes them.
  if (inDebs.bytes < debsBytes / 4) await makePackage(folder, debs);
  await run('tar', ['cf', join(folder, 'media.tar'), '-C', media, '.']);
  await run('tar', ['czf', join(folder, 'text.tgz'), '-C', '/usr/lib/python3', '.']);
  await shell(`find /usr/share/doc /usr/lib/python3 -type f -size +3k ! -name '*.gz' -print0 | sort -z | head -z -n 1500 | xargs -0 cat | head -c ${24 * mib} > ${join(folder, 'text')}`);
  await shell(`cat /usr/bin/* 2>/dev/null | head -c ${24 * mib} > ${join(folder, 'programs')}`);
  await copyFile(join(folder, 'text'), join(root, 'var.base'));
  const freshImage = join(folder, 'fresh.raw');
  await run('truncate', ['-s', String(diskBytes), freshImage]);
  await run('mke2fs', ['-q', '-t', 'ext4', '-d', root, freshImage]);
  const usedImage = join(folder, 'used.raw');
  await run('cp', ['--sparse=always', freshImage, usedImage]);
  // Text and programs all over what is free, then deleted: what a disk looks like that has been used for a year.
  await writeFile(join(folder, 'use'), `set -e\nmkdir -p ${folder}/m\nmount -o loop ${usedImage} ${folder}/m\ncd ${folder}/m\nfor i in $(seq 400); do cat ${folder}/text ${folder}/programs > old$i 2>/dev/null || break; done\nsync -f .\nrm old*\nsync -f .\ncd /\numount ${folder}/m\n`);
  await run('unshare', ['--mount', '--propagation', 'private', 'bash', join(folder, 'use')]);
  const material: Material = { folder, freshImage, usedImage, facts: { tree_files: inTree.files, tree_bytes: inTree.bytes, media_files: inMedia.files, media_bytes: inMedia.bytes, packages: (await readdir(debs)).length } };
  await writeFile(madePath, JSON.stringify(material));
  return material;
}

/** Copies files of at least 4 KiB, in the order of their names, until there is enough; of one folder no more than its part. */
async function gather(roots: readonly string[], isWanted: (name: string) => boolean, into: string, bytesMax: number): Promise<{ readonly files: number; readonly bytes: number }> {
  let [files, bytes] = [0, 0];
  for (const [index, root] of roots.entries()) {
    const until = (bytesMax * (index + 1)) / roots.length;
    for await (const path of filesBelow(root)) {
      if (bytes >= until) break;
      if (!isWanted(path)) continue;
      const { size } = await stat(path).catch(() => ({ size: 0 }));
      if (size < 4096 || size > bytesMax / 6) continue;
      await cp(path, join(into, `${files}-${basename(path)}`)).catch(() => undefined);
      files += 1;
      bytes += size;
    }
  }
  return { files, bytes };
}

async function* filesBelow(folder: string): AsyncGenerator<string, void, undefined> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield path;
  }
}

async function makePackage(folder: string, into: string): Promise<void> {
  const root = join(folder, 'package');
  await mkdir(join(root, 'DEBIAN'), { recursive: true });
  await writeFile(join(root, 'DEBIAN', 'control'), 'Package: material\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: files\n');
  await cp('/usr/lib/python3', join(root, 'usr', 'lib', 'python3'), { recursive: true });
  await run('dpkg-deb', ['-Zxz', '--build', root, join(into, 'material.deb')]);
}

async function shell(command: string): Promise<void> {
  await run('bash', ['-c', command]);
}
