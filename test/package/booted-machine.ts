/**
 * A Debian machine to install packages on: this one's root, seen through an overlay that keeps all changes in memory, with a systemd of its own as
 * process 1. Nothing of the real system is written to: its devices are a few, its kernel's settings read-only. `folder` is the same place inside and
 * outside, so that a guest of the test can be protected by a daemon in it. Not a suite.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
/** Installing, booting and everything that a test does in it, ms. */
const lifeMsMax = 600_000;

const outer = `set -e
cd "$1"; mkdir in; mount -t tmpfs tmpfs in; mkdir in/upper in/work in/root
mount -t overlay overlay -o lowerdir=/,upperdir=in/upper,workdir=in/work in/root
root=$PWD/in/root
mount -t tmpfs tmpfs $root/run; mount -t tmpfs tmpfs $root/tmp; mount -t tmpfs tmpfs $root/dev
for node in null zero full random urandom tty; do touch $root/dev/$node; mount --bind /dev/$node $root/dev/$node; done
mkdir $root/dev/pts $root/dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts $root/dev/pts; ln -s pts/ptmx $root/dev/ptmx
touch $root/dev/console; mount --bind "$1/console" $root/dev/console
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do ln -s \${link#*:} $root/dev/\${link%%:*}; done
mkdir -p "$root$1/here"; mount --bind "$1/here" "$root$1/here"
exec unshare --cgroup --net --uts --ipc --pid --fork --kill-child chroot "$root" bash -c '
mount -t proc proc /proc; mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; mount -t sysfs -o ro sysfs /sys; mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# What the machine itself would start is not asked for.
rm -rf /etc/systemd/system/*.wants /lib/systemd/system/{sysinit,local-fs,sockets,timers,multi-user,graphical}.target.wants
mkdir -p /lib/systemd/system/sockets.target.wants; ln -s ../systemd-journald.socket /lib/systemd/system/sockets.target.wants/
export container=afterimage SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=1
exec /lib/systemd/systemd --system --unit=basic.target'
`;

export class BootedMachine {
  /** The same place inside and outside. */
  readonly folder: string;
  readonly #pid: number;

  private constructor(folder: string, pid: number) {
    this.folder = folder;
    this.#pid = pid;
  }

  static async boot(t: { teardown(after: () => unknown): unknown }): Promise<BootedMachine> {
    // Not in /tmp: a service with a /tmp of its own would not see it.
    const base = await mkdtemp('/run/af-m-');
    await run('mkdir', ['-m', '0755', join(base, 'here')]);
    await run('chmod', ['0711', base]);
    await writeFile(join(base, 'console'), '');
    await writeFile(join(base, 'boot'), outer);
    const child = spawn('unshare', ['--mount', 'bash', join(base, 'boot'), base], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (bytes: Buffer) => { said += bytes.toString(); });
    const over = new Promise<void>((resolve) => { child.once('close', () => resolve()); });
    const timer = setTimeout(() => child.kill('SIGKILL'), lifeMsMax);
    t.teardown(async () => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      await over;
      await rm(base, { recursive: true, force: true });
    });
    // unshare became bash, which had children while it mounted, and became unshare again, whose one child becomes the systemd.
    const pid = await waitFor(async () => {
      if (child.exitCode !== null) throw new Error(`the machine did not come up: ${said}`);
      const only = (await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')).trim();
      return /^\d+$/.test(only) && (await readFile(`/proc/${only}/comm`, 'utf8').catch(() => '')).trim() === 'systemd' ? Number(only) : null;
    }, { limitMs: 20_000, what: 'a process 1' }).catch((error: unknown) => { throw new Error(`${String(error)}: ${said}`); });
    const machine = new BootedMachine(join(base, 'here'), pid);
    await waitFor(async () => {
      if (child.exitCode !== null) throw new Error(`the machine ended: ${said}`);
      return machine.run('systemctl', 'is-active', 'basic.target').then(() => true, () => false);
    }, { limitMs: 60_000, everyMs: 200, what: 'systemd' });
    return machine;
  }

  /** As root in the machine; resolves to its output, rejects with what it said. */
  async run(program: string, ...args: readonly string[]): Promise<string> {
    const entered = ['-t', String(this.#pid), '-m', '-p', '-n', '-u', '-i', '-C', '-r', '-w'];
    const { stdout } = await run('nsenter', [...entered, 'env', '-u', 'NODE_OPTIONS', program, ...args], { timeout: 240_000, maxBuffer: 1 << 24 });
    return stdout.trim();
  }

  /** Of a service. */
  property(unit: string, name: string): Promise<string> {
    return this.run('systemctl', 'show', '--value', '-p', name, unit);
  }
}

/** Null when this machine can boot one; else why not. */
export async function whyNoMachine(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'needs root';
  return run('unshare', ['--mount', 'sh', '-c', 'test -x /lib/systemd/systemd && mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r'])
    .then(() => null, (error: unknown) => `cannot mount an overlay of this machine: ${String(error)}`);
}
