/**
 * A real libvirtd for one test: in session mode, with all its folders in a temporary one, so that it neither needs nor touches what the system has. libvirtd is in session mode when
 * it is not root's: where the test is root's it gets a user namespace in which it is somebody else, with root's files. It and every QEMU that it has started are ended by their pids.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildLabGuest } from '../../../scripts/lab/lab-guest.ts';
import { watchLines, type SeenLine } from '../../../scripts/lab/watch-lines.ts';
import { virsh } from '../../../qemu/libvirt/virsh.ts';
import { isFault } from '../../../journal/fault.ts';
import { waitFor } from '../../support/wait.ts';

export interface DomainDisk { readonly path: string; readonly format: 'raw' | 'qcow2' }

export interface DomainOptions {
  readonly name: string;
  readonly disks: readonly DomainDisk[];
  /** What the guest does, for its kernel's command line. */
  readonly append?: string;
  /** A monitor of ours, at this path. */
  readonly ownMonitor?: string;
  readonly uuid?: string;
}

export interface PrivateLibvirt {
  readonly folder: string;
  readonly uri: string;
  /** Standard output of `virsh`. */
  virsh(...args: string[]): Promise<string>;
  place(domain: string): string;
  define(options: DomainOptions): Promise<void>;
  /** What the guest says on its serial port, from its start on. */
  serialPath(domain: string): string;
  waitForLine(domain: string, pattern: RegExp, limitMs: number): Promise<string>;
  /** SIGTERM, and started again: its domains run on. */
  restart(): Promise<void>;
}

export async function startLibvirt(t: { teardown(end: () => Promise<void>): unknown }): Promise<PrivateLibvirt> {
  // Its sockets' paths must stay below 108 bytes.
  const folder = await mkdtemp(join(tmpdir(), 'af-lv-'));
  const env = { ...process.env, HOME: folder, XDG_RUNTIME_DIR: join(folder, 'r'), XDG_CONFIG_HOME: join(folder, 'c'), XDG_CACHE_HOME: join(folder, 'k'), XDG_DATA_HOME: join(folder, 'd') };
  for (const sub of ['r', 'c', 'k', 'd']) await mkdir(join(folder, sub), { mode: 0o700 });
  const uri = `qemu+unix:///session?socket=${join(folder, 'r/libvirt/libvirt-sock')}`;
  const said: { lines: readonly SeenLine[] } = { lines: [] };
  let daemon = start();
  function start(): ReturnType<typeof spawn> {
    const disguise = process.getuid?.() === 0 ? ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--'] : [];
    // Each becomes the next, with the same pid; the kernel ends it with the test, whatever becomes of that.
    const [program, ...args] = [...disguise, 'setpriv', '--pdeathsig', 'KILL', '--', 'libvirtd'];
    const child = spawn(program!, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    said.lines = watchLines(child.stderr).lines;
    return child;
  }
  const end = async (): Promise<void> => {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    await ended;
  };
  t.teardown(async () => {
    // Their QEMUs outlive a libvirtd, as its users want it.
    for (const pid of await guestPids(folder)) process.kill(pid, 'SIGKILL');
    await end();
    await rm(folder, { recursive: true, force: true });
  });
  const answers = (): Promise<unknown> => waitFor(async () => {
    if (daemon.exitCode !== null) throw new Error(`libvirtd ended: ${said.lines.map(({ text }) => text).join('\n')}`);
    return virsh(uri, ['version']).then(() => true, (error: unknown) => { if (isFault(error, 'LIBVIRT_UNREACHABLE')) return false; throw error; });
  }, { limitMs: 30_000, what: 'libvirtd to answer', everyMs: 100 });
  await answers();
  const serialPath = (domain: string): string => join(folder, `${domain}.serial`);
  return {
    folder, uri, serialPath,
    virsh: (...args) => virsh(uri, args, { limitMs: 60_000 }),
    place: (domain) => `libvirt://${domain}?uri=${encodeURIComponent(uri)}`,
    define: async (options) => {
      const path = join(folder, `${options.name}.xml`);
      await writeFile(path, await domainXml(options, serialPath(options.name)));
      await virsh(uri, ['define', path]);
    },
    waitForLine: (domain, pattern, limitMs) => waitFor(async () => pattern.exec(await readFile(serialPath(domain), 'utf8').catch(() => ''))?.[0] ?? false, { limitMs, what: `${domain} to say ${pattern}`, everyMs: 100 }),
    restart: async () => {
      await end();
      daemon = start();
      await answers();
    },
  };
}

/** By the folder that libvirt gave each of them for its files. */
async function guestPids(folder: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(pids.map(async (pid) => {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    return /^[^\0]*qemu-system/.test(command) && command.includes(`${folder}/`) ? [pid] : [];
  }));
  return found.flat();
}

/** A lab guest (scripts/lab) as libvirt would have it defined. */
async function domainXml({ name, disks, append = 'af.mode=idle', ownMonitor, uuid }: DomainOptions, serial: string): Promise<string> {
  const { kernel, initrd } = await buildLabGuest();
  const own = ownMonitor === undefined ? '' : `<qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:${ownMonitor},server=on,wait=off'/></qemu:commandline>`;
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>${uuid === undefined ? '' : `<uuid>${uuid}</uuid>`}
  <memory unit='MiB'>192</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>${kernel}</kernel><initrd>${initrd}</initrd><cmdline>console=ttyS0 quiet ${append}</cmdline></os>
  <features><acpi/></features>
  <devices>
    ${disks.map(({ path, format }, at) => `<disk type='file' device='disk'><driver name='qemu' type='${format}' discard='unmap'/><source file='${path}'/><target dev='vd${'abcdefgh'[at]}' bus='virtio'/></disk>`).join('\n    ')}
    <interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
    <serial type='file'><source path='${serial}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
  ${own}
</domain>
`;
}
