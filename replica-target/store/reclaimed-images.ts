/**
 * A guest's own old disks, where this host still has them from before its guest was handed over: they become the images of the group that
 * brings the guest home, in their own place, so that only what differs has to come. An image is reached by a link from the group's folder; removing
 * the group removes the link. Disks of another format than raw are left alone, and then all of the disk has to come.
 */
import { symlink, unlink } from 'node:fs/promises';
import type { PointId } from '../../journal/point.ts';
import type { WireDisk } from '../../journal/wire.ts';

export interface OldImages {
  /** What they hold; null: not known. */
  readonly point: PointId | null;
  readonly images: readonly { readonly disk: number; readonly path: string; readonly format: string; readonly sizeBytes: number }[];
}

export interface ReclaimedImages {
  readonly point: PointId | null;
  /** Links are there when it resolves; what may be left of an earlier attempt is replaced. */
  place(pathOf: (disk: number) => string, disks: readonly WireDisk[]): Promise<void>;
}

/** Null when they are not those of the whole guest, each as large as it is now. */
export function reclaimable({ point, images }: OldImages, disks: readonly WireDisk[]): ReclaimedImages | null {
  const isWhole = disks.every(({ disk, sizeBytes }) => images.some((image) => image.disk === disk && image.format === 'raw' && image.sizeBytes === sizeBytes));
  if (!isWhole) return null;
  return {
    point,
    place: async (pathOf) => {
      for (const { disk } of disks) {
        const path = pathOf(disk);
        await unlink(path).catch((error: unknown) => { if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error; });
        await symlink(images.find((image) => image.disk === disk)!.path, path);
      }
    },
  };
}
