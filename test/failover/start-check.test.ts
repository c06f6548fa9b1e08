/** Whether a guest could start, asked of this host and its QEMU: what is refused does not boot, what is fine does. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { stopGuest } from '../../qemu/boot.ts';
import { guestHardware, recordHardware, type GuestHardware } from '../../qemu/hardware.ts';
import { guestPlace, launchGuest } from '../../replica-target/failover/guest-launch.ts';
import { checkStart, type StartCheckOptions } from '../../replica-target/failover/start-check.ts';
import { overlaySpace, readMemory } from '../../replica-target/failover/start-check-host.ts';
import type { StartReport } from '../../replica-target/failover/start-finding.ts';
import type { GroupStore } from '../../replica-target/store/store.ts';
import { withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { failoverRig, groupId, type FailoverRig } from './failover-rig.ts';

const uuid = '6ba7b810-9dad-41d1-80b4-00c04fd430c8';
const mac = '52:54:00:ab:cd:01';
const sizeBytes = 64 << 20;

interface Site { readonly rig: FailoverRig; readonly replicaPath: string; readonly hardware: GuestHardware; readonly guestPid: number; readonly endGuest: () => Promise<void> }

/** A lab guest that runs, what was recorded of it, and a replica of its disk. */
async function labSite(t: Test): Promise<Site> {
  const folder = t.testdir({});
  const raw = await createLabDisk(join(folder, 'a.raw'), 'raw', sizeBytes);
  const guest = await startLabGuest(t, {
    mode: 'idle', disks: [{ path: raw, format: 'raw' }], timeLimitMs: 60_000, extraArgs: ['-uuid', uuid, '-device', `virtio-net-pci,mac=${mac}`, '-name', 'original', '-cpu', 'qemu64'],
  });
  const hardware = guestHardware.parse(JSON.parse(JSON.stringify(await withQmp(guest.ownQmpPath, recordHardware))));
  const rig = await failoverRig(t, []);
  const replicaPath = await createLabDisk(join(rig.folder, 'replica.raw'), 'raw', sizeBytes);
  return { rig, replicaPath, hardware, guestPid: guest.pid, endGuest: () => guest.kill() };
}

/** What the check asks of a store, and no more. */
function storeOf({ hardware, replicaPath }: Site, changed: object, report: object = {}): GroupStore {
  const { name } = hardware.disks[0]!;
  const disks = [{ disk: 0, name, sizeBytes, replicaPath, isAtApplied: true }];
  return { groupId, hardware: () => ({ ...hardware, ...changed }), report: () => ({ groupId, name: 'web', state: 'protected', term: 1, newest: {}, disks, replicaBytes: 0, ...report }) } as unknown as GroupStore;
}

function check(site: Site, changed: object = {}, more: Partial<StartCheckOptions> = {}): Promise<StartReport> {
  const { failover, keepFreeBytes } = site.rig.options;
  return checkStart(storeOf(site, changed), { failover, keepFreeBytes, clock: nodeClock, ...more });
}

/** Check and verdict of all that is not fine. */
function told({ findings }: StartReport): string[] {
  return findings.filter(({ verdict }) => verdict !== 'fine').map(({ check: name, verdict }) => `${name} ${verdict}`);
}

void t.test('a lab guest', { timeout: 120_000 }, async (t) => {
  const site = await labSite(t);
  t.match(site.hardware.files, [{ path: site.hardware.kernel!.kernel, sha256: /^[0-9a-f]{64}$/ }, { path: site.hardware.kernel!.initrd }], 'what it was started with is recorded');

  const beside = await check(site);
  t.strictSame(told(beside), ['identity refused'], 'the original runs on this very host');
  t.match(beside.findings.find(({ verdict }) => verdict === 'refused'), { found: new RegExp(`${uuid}.*original \\(pid ${site.guestPid}\\)`) });
  t.match((await check(site, { uuid: undefined })).findings.find(({ check: name }) => name === 'identity'), { verdict: 'warning', found: new RegExp(`MAC ${mac} is in use by original`) });
  await site.endGuest();

  const alone = await check(site);
  t.match(alone, { group: 'web', verdict: 'fine', accel: 'tcg', network: 'none' }, JSON.stringify(told(alone)));
  const startedMs = performance.now();
  await check(site);
  t.ok(performance.now() - startedMs < 500, 'QEMU is not asked again');

  const kernel = { ...site.hardware.kernel!, kernel: join(site.rig.folder, 'vmlinuz') };
  const files = site.hardware.files!.map((file) => ({ ...file, path: file.path === site.hardware.kernel!.kernel ? kernel.kernel : file.path }));
  const cases: readonly (readonly [string, object, readonly string[]])[] = [
    ['a machine that this QEMU has not', { machine: { type: 'pc-q35-99.9', options: {} } }, ['machine type refused']],
    ['a CPU model that there is not', { cpu: { model: 'Nonesuch-v1', features: {} } }, ['CPU model refused']],
    ['a CPU model with more than emulation has', { cpu: { model: 'Skylake-Server-v1', features: {} } }, ['CPU model warning']],
    ['more memory than this host has', { memory: { sizeBytes: 2 ** 50 } }, ['memory refused']],
    ['more CPUs than the machine takes', { smp: { cpus: 1, maxCpus: 1000, sockets: 1000, dies: 1, clusters: 1, cores: 1, threads: 1 } }, ['CPUs refused']],
    ['a kernel that is not here', { kernel }, ['kernel refused']],
    ['an architecture that is not here', { arch: 'none' }, ['QEMU refused']],
    ['a newer record', { qemuVersion: '99.0.0' }, ['QEMU version warning']],
    ['a device of a newer QEMU', { devices: [...site.hardware.devices, { path: '/machine/peripheral/i', driver: 'igb', properties: {} }] }, ['devices refused']],
    ['a record that is none', { memory: 'much' }, ['hardware refused']],
  ];
  for (const [name, changed, expected] of cases) t.strictSame(told(await check(site, changed)), expected, name);
  await writeFile(kernel.kernel, 'another one');
  t.strictSame(told(await check(site, { kernel, files })), ['kernel warning'], 'another kernel under the same path');
  t.strictSame(told(await check(site, {}, { network: 'bridge:afnone0' })), ['network refused'], 'a bridge that is not here');
  t.strictSame(told(await check(site, {}, { network: 'bridge:lo' })), ['network refused'], 'a NIC that is no bridge');
  t.strictSame(told(await check(site, {}, { network: 'user' })), []);
  const overlayFolder = join(site.rig.folder, 'x'.repeat(80));
  t.strictSame(told(await check(site, {}, { failover: { ...site.rig.options.failover, overlayFolder } })), ['sockets refused']);
  t.strictSame(told(await check(site, {}, { searchPath: site.rig.folder })), ['QEMU refused', 'qemu-img refused']);
  await rm(site.replicaPath);
  t.strictSame(told(await check(site)), ['disks refused'], 'its replica is gone');

  // What is refused really fails, and what is fine starts.
  const launch = async (hardware: GuestHardware, folder: string): Promise<number> => {
    const place = guestPlace(join(site.rig.folder, folder));
    const pid = await launchGuest({ group: 'web', place, hardware, disks: [], network: 'none', accel: 'tcg', log: site.rig.options.log });
    await stopGuest(pid, place.qmpPath, { timeoutMs: 5000 });
    return pid;
  };
  t.ok(await launch(site.hardware, 'g0') > 0);
  for (const [index, [name, changed]] of cases.slice(0, 2).entries()) await t.rejects(launch({ ...site.hardware, ...changed }, `g${index + 1}`), { code: 'FAILOVER_BOOT' }, name);
});

void t.test('what this target itself started for the group is no clash', { timeout: 60_000 }, async (t) => {
  const site = await labSite(t);
  await site.endGuest();
  const place = guestPlace(join(site.rig.options.failover.overlayFolder, `${groupId.slice(0, 12)}-test`));
  const pid = await launchGuest({ group: 'web', place, hardware: site.hardware, disks: [], network: 'none', accel: 'tcg', log: site.rig.options.log });
  t.teardown(() => stopGuest(pid, place.qmpPath, { timeoutMs: 5000 }));
  t.strictSame(told(await check(site)), []);
  const foreign = { ...site, rig: { ...site.rig, options: { ...site.rig.options, failover: { ...site.rig.options.failover, overlayFolder: join(site.rig.folder, 'elsewhere') } } } };
  t.strictSame(told(await check(foreign)), ['identity refused'], 'that of another target is one');
});

void t.test('a full file system for overlays', { timeout: 60_000, skip: process.getuid?.() === 0 ? false : 'needs root to mount a small file system' }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'af-sc-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'tmpfs', folder]);
  t.teardown(async () => {
    execFileSync('umount', ['-l', folder]);
    await rm(folder, { recursive: true, force: true });
  });
  const rig = await failoverRig(t, []);
  const replicaPath = await createLabDisk(join(rig.folder, 'replica.raw'), 'raw', sizeBytes);
  const hardware = guestHardware.parse({
    version: 1, qemuVersion: '7.2.0', arch: 'x86_64', machine: { type: 'q35', options: {} }, memory: { sizeBytes: 1 << 26 }, ioThreads: [], devices: [], disks: [{ name: 'vda', sizeBytes }], serialPorts: 0, notes: [],
  });
  const site: Site = { rig, replicaPath, hardware, guestPid: 0, endGuest: async () => undefined };
  const failover = { ...rig.options.failover, overlayFolder: join(folder, 'over', 'lays') };
  t.strictSame(told(await check(site, {}, { failover })), [], 'the folder need not be there yet');
  t.strictSame(told(await checkStart(storeOf(site, {}, { replicaBytes: 1 << 30 }), { failover, keepFreeBytes: 1 << 20, clock: nodeClock })), ['space warning']);
  await writeFile(join(folder, 'ballast'), Buffer.alloc(40 << 20, 1));
  const full = await check(site, {}, { failover });
  t.strictSame(told(full), ['space refused']);
  t.match(full.findings.find(({ check: name }) => name === 'space'), { found: /^56 MiB free/ });
  await mkdir(join(folder, 'over'));
  await writeFile(join(folder, 'over', 'lays'), '');
  t.match(await overlaySpace(failover.overlayFolder), { why: /is no folder/ });
  t.match(await overlaySpace(join(failover.overlayFolder, 'deeper')), { why: 'ENOTDIR' });
});

void t.test('memory, and the control groups that limit it', async (t) => {
  const root = t.testdir({
    proc: { meminfo: 'MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:       1024 kB\nSwapFree:        512 kB\n', self: { cgroup: '4:memory:/a/b\n1:cpu:/x\n0::/service\n' } },
    sys: {
      fs: {
        cgroup: {
          service: { 'memory.max': 'max\n' },
          memory: {
            'memory.limit_in_bytes': '9223372036854771712\n',
            a: { 'memory.limit_in_bytes': '1000000\n', 'memory.usage_in_bytes': '700000\n', 'memory.stat': 'cache 1\ntotal_inactive_file 200000\n', b: { 'memory.limit_in_bytes': '5000000\n', 'memory.usage_in_bytes': '10\n' } },
          },
        },
      },
    },
  });
  t.strictSame(await readMemory(root), { totalBytes: 2 << 20, availableBytes: 1 << 20, swapFreeBytes: 512 << 10, limit: { limitBytes: 1_000_000, availableBytes: 500_000 } }, 'the tightest of all above, and page cache can go');
  const second = t.testdir({ proc: { meminfo: '', self: { cgroup: '0::/host/path/of/a/container\n' } }, sys: { fs: { cgroup: { 'memory.max': '4096', 'memory.current': '9999' } } } });
  t.match(await readMemory(second), { limit: { limitBytes: 4096, availableBytes: 0 } });
  const none = t.testdir({ proc: { meminfo: '', self: {} } });
  t.match(await readMemory(none), { limit: null });
  const { totalBytes, availableBytes } = await readMemory();
  t.ok(totalBytes > availableBytes && availableBytes > 0);
});
