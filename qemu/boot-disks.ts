/**
 * The block nodes of a guest that is started here: names of our own choice, so that no name that QEMU makes up stands between
 * an operator and a disk. A disk is an image of this host, and where it was booted from a restore point the image overlays
 * what an NBD server shows of it. Invariant: a server that goes away for a while makes the guest wait, not fail.
 */

/** What an overlay reads where it holds nothing itself. */
export interface NbdBacking {
  /** Unix socket of the server. */
  readonly socketPath: string;
  readonly exportName: string;
}

export interface BootDisk {
  /** Position in the record's `disks`; counts only when `name` is not given. */
  readonly disk: number;
  /** The disk's name, as in the record's `disks`. */
  readonly name?: string;
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** Of a qcow2 image. Without it the image's own header says what it overlays. */
  readonly backing?: NbdBacking;
  /** The image's file takes no more, whatever the guest writes; it must have that length already. */
  readonly fileBytesMax?: number;
}

/** How long a request waits for a server that went away before it fails, seconds. A guest whose requests then fail is stopped, not told. */
export const reconnectSeconds = 3600;
/** How long a starting QEMU waits for the server. */
const openSeconds = 30;

/** The node that a disk's device is attached to. */
export function diskNode({ disk }: { readonly disk: number }): string {
  return `disk${disk}`;
}

/** The node through which a disk's image reads what an NBD server shows. */
export function backingNode(disk: { readonly disk: number }): string {
  return `${diskNode(disk)}-view`;
}

export function diskNodes(disk: BootDisk): string[] {
  const node = diskNode(disk);
  const file = `${node}-file`;
  const window = `${node}-window`;
  const { backing, fileBytesMax } = disk;
  return [
    ...blockdev({ driver: 'file', 'node-name': file, filename: disk.path, discard: 'unmap' }),
    ...(fileBytesMax === undefined ? [] : blockdev({ driver: 'raw', 'node-name': window, file, size: fileBytesMax, discard: 'unmap' })),
    ...(backing === undefined ? [] : blockdev({
      driver: 'nbd', 'node-name': backingNode(disk), 'read-only': true, server: { type: 'unix', path: backing.socketPath }, export: backing.exportName,
      'reconnect-delay': reconnectSeconds, 'open-timeout': openSeconds,
    })),
    ...blockdev({
      driver: disk.format, 'node-name': node, file: fileBytesMax === undefined ? file : window, discard: 'unmap',
      ...(backing === undefined ? {} : { backing: backingNode(disk) }),
    }),
  ];
}

/** Whether a request of this disk may fail for reasons of this host's, and the guest had better be stopped than told. */
export function isStoppedOnError(disk: BootDisk): boolean {
  return disk.backing !== undefined || disk.fileBytesMax !== undefined;
}

function blockdev(options: Readonly<Record<string, unknown>>): string[] {
  return ['-blockdev', JSON.stringify(options)];
}
