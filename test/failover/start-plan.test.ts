/** Whether a guest could start, as a pure decision: each check from fine to refused, one fact changed at a time. */
import t from 'tap';
import { identityOf } from '../../qemu/running-guests.ts';
import { guestHardware, type GuestHardware } from '../../qemu/hardware.ts';
import type { StartFinding } from '../../replica-target/failover/start-finding.ts';
import { judgeStart, worstOf, type StartFacts } from '../../replica-target/failover/start-plan.ts';
import { isGroupDue, worseFindings, type GroupLook } from '../../replica-target/failover/start-watch-plan.ts';

const gib = 1024 ** 3;
const uuid = '6ba7b810-9dad-41d1-80b4-00c04fd430c8';
const mac = '52:54:00:aa:00:01';

const hardware: GuestHardware = guestHardware.parse({
  version: 1, qemuVersion: '7.2.22', arch: 'x86_64', accel: 'tcg', uuid, machine: { type: 'pc-q35-7.2', options: {} },
  cpu: { model: 'Skylake-Server-v1', features: { avx512f: false, aes: true, 'hv-relaxed': true } }, smp: { cpus: 2, maxCpus: 4, sockets: 1, dies: 1, clusters: 1, cores: 4, threads: 1 },
  memory: { sizeBytes: 4 * gib }, ioThreads: [], disks: [{ name: 'vda', sizeBytes: 20 * gib }], serialPorts: 1, notes: [],
  devices: [
    { path: '/machine/peripheral/d', driver: 'virtio-blk-pci', disk: 'vda', properties: {} },
    { path: '/machine/peripheral/n', driver: 'virtio-net-pci', properties: { mac: mac.toUpperCase() } },
  ],
});

const abilities: NonNullable<StartFacts['program']['abilities']> = {
  version: '7.2.22',
  machines: new Map([['pc-q35-7.2', { cpusMax: 288, isDeprecated: false }], ['pc-i440fx-1.4', { cpusMax: 255, isDeprecated: true }]]),
  cpuModels: new Map([['Skylake-Server-v1', { missing: ['avx512f'], isDeprecated: false }], ['old', { missing: [], isDeprecated: true }], ['max', { missing: [], isDeprecated: false }]]),
  cpuFeatures: new Map([['aes', true], ['avx2', false], ['hv-relaxed', false]]),
  devices: new Set(['virtio-blk-pci', 'virtio-net-pci']),
  networks: new Set(['user']),
};

const facts: StartFacts = {
  hasPoint: true, hardware, accel: 'tcg', hostCpus: 4, files: [], network: 'none', bridges: [], running: [], socketPathBytes: 60,
  program: { name: 'qemu-system-x86_64', path: '/usr/bin/qemu-system-x86_64', abilities, why: null, accelWhy: null, hasQemuImg: true },
  memory: { totalBytes: 16 * gib, availableBytes: 8 * gib, swapFreeBytes: 0, limit: null },
  disks: [{ name: 'vda', isThere: true, isAtApplied: true }],
  overlays: { folder: '/o', why: null, freeBytes: 100 * gib, keepFreeBytes: gib, replicaBytes: 20 * gib },
};

const withHardware = (more: Partial<GuestHardware>): StartFacts => ({ ...facts, hardware: { ...hardware, ...more } });
const withAbilities = (more: Partial<typeof abilities>): StartFacts => ({ ...facts, program: { ...facts.program, abilities: { ...abilities, ...more } } });
const withMemory = (more: Partial<StartFacts['memory']>): StartFacts => ({ ...facts, memory: { ...facts.memory, ...more } });
const withSpace = (more: Partial<StartFacts['overlays']>): StartFacts => ({ ...facts, overlays: { ...facts.overlays, ...more } });
const cpu = (model: string, features: Record<string, boolean | number> = {}): StartFacts => withHardware({ cpu: { model, features } });
const other = { pid: 7, name: 'db', uuids: [], macs: [], qmpPaths: [], isSameNetwork: true };
const bridge = { name: 'br0', state: 'up' as const };

t.test('a host that has all of it', async (t) => {
  const findings = judgeStart(facts);
  t.strictSame(findings.filter(({ verdict }) => verdict !== 'fine'), []);
  t.equal(worstOf(findings), 'fine');
  t.ok(findings.every(({ advice }) => advice === ''));
});

const cases: readonly (readonly [string, StartFacts, string, StartFinding['verdict'], RegExp])[] = [
  ['no point', { ...facts, hasPoint: false }, 'point', 'refused', /no point/],
  ['no QEMU', { ...facts, program: { ...facts.program, path: null, abilities: null } }, 'QEMU', 'refused', /qemu-system-x86_64 is not installed/],
  ['a QEMU that does not answer', { ...facts, program: { ...facts.program, abilities: null, why: 'it ended with 127' } }, 'QEMU', 'refused', /cannot be asked: it ended/],
  ['no qemu-img', { ...facts, program: { ...facts.program, hasQemuImg: false } }, 'qemu-img', 'refused', /no overlay/],
  ['KVM that fails', { ...facts, accel: 'kvm', program: { ...facts.program, accelWhy: 'no access' } }, 'accelerator', 'refused', /under kvm: no access/],
  ['emulated in place of KVM', withHardware({ accel: 'kvm' }), 'accelerator', 'warning', /many times slower/],
  ['an older QEMU', withAbilities({ version: '7.1.9' }), 'QEMU version', 'warning', /7\.1\.9, and the guest runs under 7\.2\.22/],
  ['a newer QEMU', withAbilities({ version: '10.0.0' }), 'QEMU version', 'fine', /10\.0\.0/],
  ['an unknown machine', withHardware({ machine: { type: 'pc-q35-99', options: {} } }), 'machine type', 'refused', /no machine pc-q35-99/],
  ['a deprecated machine', withHardware({ machine: { type: 'pc-i440fx-1.4', options: {} } }), 'machine type', 'warning', /deprecated/],
  ['an unknown model', cpu('Thing'), 'CPU model', 'refused', /no CPU model Thing/],
  ['a model that lacks a feature', cpu('Skylake-Server-v1'), 'CPU model', 'warning', /would lack avx512f under emulation/],
  ['a feature that was added', cpu('max', { avx2: true }), 'CPU model', 'warning', /would lack avx2/],
  ['a switch of the hypervisor', cpu('max', { 'hv-relaxed': true }), 'CPU model', 'fine', /max/],
  ['host without KVM', cpu('host'), 'CPU model', 'warning', /needs KVM/],
  ['host with KVM', { ...cpu('host'), accel: 'kvm' }, 'CPU model', 'fine', /this host’s own/],
  ['a deprecated model', cpu('old'), 'CPU model', 'warning', /deprecated/],
  ['more CPUs than the machine takes', withHardware({ smp: { ...hardware.smp!, maxCpus: 300 } }), 'CPUs', 'refused', /up to 300, and pc-q35-7\.2 takes 288/],
  ['more CPUs than the host has', { ...facts, hostCpus: 1 }, 'CPUs', 'warning', /2, and this host has 1/],
  ['a device that is not built in', withAbilities({ devices: new Set(['virtio-blk-pci']) }), 'devices', 'refused', /has no virtio-net-pci/],
  ['a device that is not started', withHardware({ devices: [...hardware.devices, { path: '/machine/peripheral/v', driver: 'vfio-pci', properties: {} }] }), 'devices', 'warning', /vfio-pci/],
  ['more memory than the host has', withMemory({ totalBytes: 3 * gib }), 'memory', 'refused', /the guest has 4\.0 GiB, this host 3\.0 GiB/],
  ['more memory than is free', withMemory({ availableBytes: 4 * gib }), 'memory', 'refused', /4\.0 GiB are available here/],
  ['swap in its place', withMemory({ availableBytes: 3 * gib, swapFreeBytes: 4 * gib }), 'memory', 'warning', /without swap/],
  ['more memory than the service may take', withMemory({ limit: { limitBytes: 2 * gib, availableBytes: gib } }), 'memory', 'refused', /all of this service may take 2\.0 GiB/],
  ['less left of what it may take', withMemory({ swapFreeBytes: 9 * gib, limit: { limitBytes: 6 * gib, availableBytes: gib } }), 'memory', 'refused', /under the limit/],
  ['a limit that is far', withMemory({ limit: { limitBytes: 60 * gib, availableBytes: 50 * gib } }), 'memory', 'fine', /8\.0 GiB are available/],
  ['plugged memory counts', withHardware({ memory: { sizeBytes: 4 * gib, pluggedBytes: 20 * gib } }), 'memory', 'refused', /24 GiB/],
  ['no kernel', { ...facts, files: [{ what: 'kernel', path: '/k', state: 'missing' }] }, 'kernel', 'refused', /\/k is not on this host/],
  ['an initrd of another user', { ...facts, files: [{ what: 'initrd', path: '/i', state: 'unreadable' }] }, 'initrd', 'refused', /may not be read/],
  ['another kernel', { ...facts, files: [{ what: 'kernel', path: '/k', state: 'changed' }] }, 'kernel', 'warning', /another one/],
  ['a BIOS that QEMU replaces', { ...facts, files: [{ what: 'bios', path: '/b/bios', state: 'missing' }] }, 'BIOS', 'warning', /QEMU’s own/],
  ['no variables', withHardware({ firmware: { codePath: '/c', varsPath: '/v' } }), 'firmware', 'warning', /not recorded/],
  ['a replica that is gone', { ...facts, disks: [{ name: 'vda', isThere: false, isAtApplied: true }] }, 'disks', 'refused', /replica of vda/],
  ['a disk that is to come', { ...facts, disks: [{ name: 'vda', isThere: false, isAtApplied: false }] }, 'disks', 'warning', /vda: not here yet/],
  ['no space', withSpace({ freeBytes: gib + 63 * 1024 ** 2 }), 'space', 'refused', /1\.1 GiB free/],
  ['no space to stand alone', withSpace({ freeBytes: 15 * gib }), 'space', 'warning', /up to 20 GiB are needed/],
  ['a folder of another user', withSpace({ why: 'EACCES' }), 'space', 'refused', /cannot be made in \/o: EACCES/],
  ['no bridge', { ...facts, network: 'bridge:br0', bridges: [{ name: 'br0', state: 'missing' }] }, 'network', 'refused', /no bridge br0/],
  ['a NIC in place of a bridge', { ...facts, network: 'bridge:eth0', bridges: [{ name: 'eth0', state: 'no-bridge' }] }, 'network', 'refused', /eth0 is no bridge/],
  ['a bridge that is down', { ...facts, network: 'bridge:br0', bridges: [{ name: 'br0', state: 'down' }] }, 'network', 'warning', /down/],
  ['a bridge', { ...facts, network: 'bridge:br0', bridges: [bridge] }, 'network', 'fine', /its NIC at the bridge br0/],
  ['user-mode networking', { ...facts, network: 'user' }, 'network', 'fine', /address translation/],
  ['no user-mode networking', { ...withAbilities({ networks: new Set() }), network: 'user' }, 'network', 'refused', /built without/],
  ['a twin', { ...facts, running: [{ ...other, uuids: [uuid] }] }, 'identity', 'refused', /that of db \(pid 7\)/],
  ['a twin on another network', { ...facts, running: [{ ...other, uuids: [uuid], isSameNetwork: false }] }, 'identity', 'warning', /network namespace/],
  ['a MAC that it never meets', { ...facts, running: [{ ...other, macs: [mac] }] }, 'identity', 'warning', new RegExp(`MAC ${mac} is in use by db`)],
  ['a MAC at its bridge', { ...facts, network: 'bridge:br0', bridges: [bridge], running: [{ ...other, macs: [mac] }] }, 'identity', 'refused', /MAC/],
  ['others', { ...facts, running: [{ ...other, macs: ['52:54:00:aa:00:02'], uuids: [uuid.replace('6', '7')] }] }, 'identity', 'fine', /1 other QEMU processes/],
  ['long paths', { ...facts, socketPathBytes: 108 }, 'sockets', 'refused', /108 bytes/],
  ['paths just short enough', { ...facts, socketPathBytes: 107 }, 'sockets', 'fine', /107 bytes/],
];

for (const [name, changed, check, verdict, found] of cases) {
  t.test(name, async (t) => {
    const findings = judgeStart(changed);
    t.match(findings.filter((finding) => finding.check === check && finding.verdict === verdict), [{ found }], `${check} is ${verdict}`);
    t.equal(worstOf(findings), verdict);
    t.ok(findings.every((finding) => (finding.advice === '') === (finding.verdict === 'fine')), 'what is not fine has advice');
  });
}

t.test('who a QEMU says it is', async (t) => {
  t.strictSame(identityOf(['/usr/bin/qemu-system-x86_64', '-name', 'guest=web,debug-threads=on', '-uuid', uuid.toUpperCase(), '-smbios', 'type=1,uuid=11111111-2222-3333-4444-555555555555,serial=x',
    '-device', '{"driver":"virtio-net-pci","netdev":"n0","mac":"52:54:00:AA:00:01"}', '--device', 'e1000,netdev=n1,mac=52-54-00-aa-00-02', '-net', 'nic,macaddr=52:54:00:aa:00:03', '-qmp', 'unix:/run/a,,b,server=on']), {
    name: 'web', uuids: [uuid, '11111111-2222-3333-4444-555555555555'], macs: [mac, '52:54:00:aa:00:02', '52:54:00:aa:00:03'], qmpPaths: ['/run/a,b'],
  });
  t.match(identityOf(['kvm', '-name', 'db']), { name: 'db' });
  t.equal(identityOf(['/usr/bin/qemu-storage-daemon', '--blockdev', 'x']), null);
  t.equal(identityOf(['grep', 'qemu-system-x86_64', '-uuid', uuid]), null);
  t.equal(identityOf(['']), null);
});

t.test('when a group is due, and what of a look is news', async (t) => {
  const look: GroupLook = { nowMs: 10_000_000, everyMs: 3_600_000, isProtected: true, hasPoint: true, hasHardware: true, last: { atMs: 10_000_000 - 3_599_999, verdict: 'fine', isSameHardware: true } };
  const last = look.last!;
  t.notOk(isGroupDue(look));
  t.ok(isGroupDue({ ...look, nowMs: look.nowMs + 1 }));
  t.ok(isGroupDue({ ...look, last: null }));
  t.ok(isGroupDue({ ...look, last: { ...last, isSameHardware: false } }));
  t.ok(isGroupDue({ ...look, last: { ...last, verdict: 'refused' } }), 'what is refused is looked at sooner');
  t.notOk(isGroupDue({ ...look, last: { ...last, verdict: 'refused', atMs: look.nowMs - 299_999 } }));
  t.ok(isGroupDue({ ...look, last: { ...last, atMs: look.nowMs + 1 } }), 'the clock was set back');
  for (const none of [{ isProtected: false }, { hasPoint: false }, { hasHardware: false }]) t.notOk(isGroupDue({ ...look, ...none, last: null }));
  const finding = (check: string, verdict: StartFinding['verdict']): StartFinding => ({ check, verdict, found: '', advice: '' });
  const now = [finding('a', 'fine'), finding('b', 'warning'), finding('c', 'refused')];
  t.strictSame(worseFindings([], now).map(({ check }) => check), ['b', 'c']);
  t.strictSame(worseFindings(now, now), []);
  t.strictSame(worseFindings([finding('b', 'refused'), finding('c', 'warning')], now).map(({ check }) => check), ['c']);
});
