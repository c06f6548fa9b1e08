/** Facts of this host for start-plan.ts: memory and its limits, files, bridges, space. Only reads, and judges nothing. */
import { access, constants, readFile, stat, statfs } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import type { GuestHardware } from '../../qemu/hardware.ts';
import { fileDigest } from '../../qemu/hardware-files.ts';
import { errorCode } from '../store/store-fault.ts';
import type { MemoryFacts } from './start-machine-plan.ts';
import type { BridgeState, NamedFile, StartFacts } from './start-plan.ts';

/** `root`: for tests, where `proc` and `sys` are found in place of `/`. */
export async function readMemory(root = '/'): Promise<MemoryFacts> {
  const info = await readFile(join(root, 'proc/meminfo'), 'utf8');
  const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(info)?.[1] ?? 0) * 1024;
  return { totalBytes: bytes('MemTotal'), availableBytes: bytes('MemAvailable'), swapFreeBytes: bytes('SwapFree'), limit: await readLimit(root) };
}

/** What lies beneath the root of the hierarchy limits nothing; a file of that size says "no limit" (cgroup v1). */
const noLimitBytes = 2 ** 62;

async function readLimit(root: string): Promise<MemoryFacts['limit']> {
  let tightest: MemoryFacts['limit'] = null;
  for (const line of ((await readIfThere(join(root, 'proc/self/cgroup'))) ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined || !(controllers === '' || controllers.split(',').includes('memory'))) continue;
    const kind = controllers === ''
      ? { mounts: ['sys/fs/cgroup', 'sys/fs/cgroup/unified'], limit: 'memory.max', used: 'memory.current', cache: 'inactive_file' }
      : { mounts: ['sys/fs/cgroup/memory'], limit: 'memory.limit_in_bytes', used: 'memory.usage_in_bytes', cache: 'total_inactive_file' };
    for (const mount of kind.mounts) {
      // A limit holds for all beneath; in a container the path may be the host's, of which only the mount's root can be seen.
      for (let at = path; ; at = dirname(at)) {
        const folder = join(root, mount, at);
        const limitBytes = Number((await readIfThere(join(folder, kind.limit)))?.trim());
        // `max` is no number, and none is there at the root.
        if (Number.isFinite(limitBytes) && limitBytes < noLimitBytes) {
          const usedBytes = Number((await readIfThere(join(folder, kind.used))) ?? 0);
          const cacheBytes = Number(new RegExp(`^${kind.cache} (\\d+)$`, 'm').exec((await readIfThere(join(folder, 'memory.stat'))) ?? '')?.[1] ?? 0);
          const availableBytes = Math.max(0, limitBytes - Math.max(0, usedBytes - cacheBytes));
          if (tightest === null || availableBytes < tightest.availableBytes) tightest = { limitBytes, availableBytes };
        }
        if (at === '/') break;
      }
    }
  }
  return tightest;
}

/** What a process keeps in memory, which is free once it has ended, bytes; 0 when it has. */
export async function residentBytes(pid: number): Promise<number> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec((await readIfThere(`/proc/${pid}/status`)) ?? '')?.[1];
  return Number(kib ?? 0) * 1024;
}

/** Kernel, initrd, firmware and BIOS that the record names by path. A BIOS without a folder is one of QEMU's own. */
export async function namedFiles({ kernel, firmware, files = [] }: GuestHardware): Promise<NamedFile[]> {
  const bios = firmware?.codePath === undefined ? firmware?.biosPath : undefined;
  const named: readonly (readonly [NamedFile['what'], string | undefined])[] = [
    ['kernel', kernel?.kernel], ['initrd', kernel?.initrd], ['firmware', firmware?.codePath], ['bios', bios?.includes('/') === true ? bios : undefined],
  ];
  return Promise.all(named.flatMap(([what, path]) => (path === undefined ? [] : [fileState(path, files.find((file) => file.path === path)?.sha256).then((state) => ({ what, path, state }))])));
}

async function fileState(path: string, sha256: string | undefined): Promise<NamedFile['state']> {
  // Relative to a folder that nobody knows.
  if (!isAbsolute(path)) return 'missing';
  try {
    await access(path, constants.R_OK);
    return sha256 === undefined || await fileDigest(path) === sha256 ? 'there' : 'changed';
  } catch (error) {
    const code = errorCode(error);
    if (code === null) throw error;
    return code === 'ENOENT' || code === 'ENOTDIR' ? 'missing' : 'unreadable';
  }
}

export async function canRead(path: string): Promise<boolean> {
  return (await refusalOf(path, constants.R_OK)) === null;
}

export async function bridgeState(name: string): Promise<BridgeState> {
  const folder = join('/sys/class/net', name);
  if (await refusalOf(folder, constants.F_OK) !== null) return { name, state: 'missing' };
  if (await refusalOf(join(folder, 'bridge'), constants.F_OK) !== null) return { name, state: 'no-bridge' };
  // <linux/if.h> IFF_UP: an administrator has switched it on, whether or not a port has a carrier.
  const flags = Number((await readIfThere(join(folder, 'flags')))?.trim() ?? 0);
  return { name, state: (flags & 1) === 1 ? 'up' : 'down' };
}

/** Of the folder, or of the nearest one above it that is there already. */
export async function overlaySpace(folder: string): Promise<Pick<StartFacts['overlays'], 'why' | 'freeBytes'>> {
  let at = folder;
  let absent = await refusalOf(at, constants.F_OK);
  for (; absent === 'ENOENT' && at !== dirname(at); absent = await refusalOf(at, constants.F_OK)) at = dirname(at);
  if (absent !== null) return { why: absent, freeBytes: 0 };
  const why = (await stat(at)).isDirectory() ? await refusalOf(at, constants.W_OK | constants.X_OK) : `${at} is no folder`;
  const { bavail, bsize } = await statfs(at);
  return { why, freeBytes: bavail * bsize };
}

async function refusalOf(path: string, mode: number): Promise<string | null> {
  try {
    await access(path, mode);
    return null;
  } catch (error) {
    const code = errorCode(error);
    if (code === null) throw error;
    return code;
  }
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    // Not of this kernel, not of this group, or gone since; what cannot be read says nothing.
    if (errorCode(error) === null) throw error;
    return null;
  }
}
