/** Which files of its host a guest's disks are, where each is one plain file. Changes nothing in QEMU. */
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { takeDiskInventory } from './guest-disks.ts';
import type { QmpConnection } from './qmp.ts';

export interface GuestImage {
  /** Position among the guest's disks. */
  readonly disk: number;
  /** Absolute. */
  readonly path: string;
  readonly format: string;
  readonly sizeBytes: number;
  /** Of the file's last write, ns as text: by it a later one is noticed. */
  readonly writtenAtNs: string;
}

interface NamedNode { readonly 'node-name': string; readonly drv: string; readonly image?: { readonly filename: string; readonly 'backing-filename'?: string } }

/** A disk whose content is not in one file under a path is left out. */
export async function listImages(qmp: QmpConnection): Promise<readonly GuestImage[]> {
  const { disks } = await takeDiskInventory(qmp);
  const nodes = await qmp.execute<NamedNode[]>('query-named-block-nodes', { flat: true });
  const images: GuestImage[] = [];
  for (const [disk, { trackNode, sizeBytes }] of disks.entries()) {
    const node = nodes.find((one) => one['node-name'] === trackNode);
    const path = node?.image?.filename;
    if (node === undefined || path === undefined || !isAbsolute(path) || node.image?.['backing-filename'] !== undefined) continue;
    const { mtimeNs } = await stat(path, { bigint: true });
    images.push({ disk, path, format: node.drv, sizeBytes, writtenAtNs: mtimeNs.toString() });
  }
  return images;
}

/** Whether nobody wrote to it since it was listed; null when it is not there any more. */
export async function isUntouched({ path, writtenAtNs }: GuestImage): Promise<boolean | null> {
  try {
    return (await stat(path, { bigint: true })).mtimeNs.toString() === writtenAtNs;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
