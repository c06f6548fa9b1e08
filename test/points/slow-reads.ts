/** A disk whose reads of some files wait until a test lets them go, and only then read. Everything else passes through. */
import type { Disk, DiskFile } from '../../host/disk.ts';

export function withSlowReads(disk: Disk, wait: (path: string) => Promise<void>): Disk {
  return passing(disk, 'open', async (path: string, mode: 'read' | 'readWrite' | 'create') => {
    const file = await disk.open(path, mode);
    return passing(file, 'read', async (into: Buffer, intoAt: number, length: number, at: number) => {
      await wait(path);
      return file.read(into, intoAt, length, at);
    });
  });
}

function passing<T extends Disk | DiskFile, K extends keyof T>(target: T, replaced: K, by: T[K]): T {
  return new Proxy(target, {
    get: (of, key) => {
      if (key === replaced) return by;
      const value: unknown = Reflect.get(of, key);
      return typeof value === 'function' ? value.bind(of) as unknown : value;
    },
  });
}
