/**
 * The guests that run on this host and who they say they are: name, UUIDs and MACs from the command lines of QEMU processes.
 * Best effort, and to be told so: a NIC that was plugged later is not in a command line, other users' processes may be hidden,
 * and the guests of another process namespace cannot be seen.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';

export interface GuestIdentity {
  readonly name: string | null;
  /** Lower case. */
  readonly uuids: readonly string[];
  /** Lower case, with colons. */
  readonly macs: readonly string[];
  /** Unix sockets of its monitors, as `-qmp` names them. */
  readonly qmpPaths: readonly string[];
}

export interface RunningGuest extends GuestIdentity {
  readonly pid: number;
  /** Whether it lives in this process's network namespace; also when that cannot be seen. */
  readonly isSameNetwork: boolean;
}

export async function runningGuests(): Promise<RunningGuest[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const own = await readOrNull(() => readlink('/proc/self/ns/net'));
  const found = await Promise.all(pids.map(async (pid) => {
    const identity = identityOf(((await readOrNull(() => readFile(`/proc/${pid}/cmdline`, 'utf8'))) ?? '').split('\0'));
    if (identity === null) return [];
    const network = await readOrNull(() => readlink(`/proc/${pid}/ns/net`));
    return [{ pid: Number(pid), ...identity, isSameNetwork: network === null || network === own }];
  }));
  return found.flat();
}

/** Of a command line, program first; null when it is none of a QEMU that runs a guest. */
export function identityOf(argv: readonly string[]): GuestIdentity | null {
  const [program = '', ...words] = argv;
  if (!/^(qemu-system-\w+|qemu-kvm|kvm)$/.test(basename(program))) return null;
  let name: string | null = null;
  const uuids = new Set<string>();
  const macs = new Set<string>();
  const qmpPaths: string[] = [];
  words.forEach((word, i) => {
    const value = words[i + 1] ?? '';
    // An option has one dash or two.
    switch (word.replace(/^--?/, word.startsWith('-') ? '-' : '')) {
      case '-name': name = (/(?:^|,)(?:guest=)?([^,=]+)(?:,|$)/.exec(value)?.[1] ?? value) || null; break;
      case '-uuid': uuids.add(value.toLowerCase()); break;
      case '-smbios': add(uuids, value, ['uuid']); break;
      case '-qmp': qmpPaths.push(...(/^unix:((?:[^,]|,,)+)/.exec(value)?.slice(1) ?? []).map((path) => path.replaceAll(',,', ','))); break;
      case '-device': case '-net': case '-nic': add(macs, value, ['mac', 'macaddr']); break;
      default:
    }
  });
  return { name, uuids: [...uuids], macs: [...macs], qmpPaths };
}

/** From `key=value,…` and from JSON, which libvirt gives. */
function add(to: Set<string>, options: string, keys: readonly string[]): void {
  for (const key of keys) {
    const pattern = options.trimStart().startsWith('{') ? `"${key}"\\s*:\\s*"([^"]+)"` : `(?:^|,)${key}=([^,]+)`;
    const value = new RegExp(pattern).exec(options)?.[1];
    if (value !== undefined) to.add(value.toLowerCase().replaceAll('-', key === 'uuid' ? '-' : ':'));
  }
}

/** A process may be gone by now, or be hidden from this user. */
async function readOrNull(read: () => Promise<string>): Promise<string | null> {
  try {
    return await read();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return null;
    throw error;
  }
}
