/** File systems by the number that statfs(2) gives: which are local, which are behind a network. Pure. */

export type FileSystemKind = 'local' | 'memory' | 'network' | 'unknown';
export interface FileSystem { readonly name: string; readonly kind: FileSystemKind }

const known: Readonly<Record<number, FileSystem>> = {
  0xef53: { name: 'ext4', kind: 'local' },
  0x58465342: { name: 'xfs', kind: 'local' },
  0x9123683e: { name: 'btrfs', kind: 'local' },
  0x2fc12fc1: { name: 'zfs', kind: 'local' },
  0xf2f52010: { name: 'f2fs', kind: 'local' },
  0xca451a4e: { name: 'bcachefs', kind: 'local' },
  0x3153464a: { name: 'jfs', kind: 'local' },
  0x52654973: { name: 'reiserfs', kind: 'local' },
  0x794c7630: { name: 'overlayfs', kind: 'local' },
  0x01021994: { name: 'tmpfs', kind: 'memory' },
  0x858458f6: { name: 'ramfs', kind: 'memory' },
  0x6969: { name: 'NFS', kind: 'network' },
  0x517b: { name: 'SMB', kind: 'network' },
  0xff534d42: { name: 'CIFS', kind: 'network' },
  0xfe534d42: { name: 'SMB2', kind: 'network' },
  0x01021997: { name: '9p', kind: 'network' },
  0x00c36400: { name: 'Ceph', kind: 'network' },
  0x5346414f: { name: 'AFS', kind: 'network' },
  0x0bd00bd0: { name: 'Lustre', kind: 'network' },
  0x73757245: { name: 'Coda', kind: 'network' },
  0x01161970: { name: 'GFS2', kind: 'network' },
  0x7461636f: { name: 'OCFS2', kind: 'network' },
  0x786f4256: { name: 'vboxsf', kind: 'network' },
  0xbacbacbc: { name: 'vmhgfs', kind: 'network' },
};
const fuseMagic = 0x65735546;

/** `mountType`: the type in /proc/self/mountinfo, which alone tells what is behind FUSE; null when it is not known. */
export function fileSystemOf(magic: number, mountType: string | null): FileSystem {
  const unsigned = magic >>> 0;
  if (unsigned !== fuseMagic) return known[unsigned] ?? { name: mountType ?? `0x${unsigned.toString(16)}`, kind: 'unknown' };
  // A block device behind FUSE (ntfs-3g) is on this host; every other one may be anywhere.
  return mountType === 'fuseblk' ? { name: mountType, kind: 'local' } : { name: mountType ?? 'FUSE', kind: 'network' };
}

/** The type of the mount that holds `path`, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5)). Later mounts hide earlier ones. */
export function mountTypeOf(mountInfo: string, path: string): string | null {
  let best: { readonly point: string; readonly type: string } | null = null;
  for (const line of mountInfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const point = before?.split(' ')[4]?.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    const type = after?.split(' ')[0];
    if (point === undefined || type === undefined) continue;
    const isHolder = path === point || point === '/' || path.startsWith(`${point}/`);
    if (isHolder && (best === null || point.length >= best.point.length)) best = { point, type };
  }
  return best?.type ?? null;
}
