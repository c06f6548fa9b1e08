/**
 * Stands in for Proxmox VE's `qm` (start, stop, status), in a folder that stands for `/`: it reads the config file and storage.cfg as Proxmox VE does, and starts a real QEMU with the
 * block devices, monitors, IDs and order of the command line that Proxmox VE 9.2 gives (qemu-server 9.2.6: src/test/cfg2cmd and `config_to_command`). It is not Proxmox VE: addresses of
 * PCI bridges, taps, VNC, locks between calls and many devices are left out. What Proxmox VE would not read, it does not read either.
 *
 * node qm.mjs --root FOLDER [--kernel PATH --initrd PATH --append WORDS] start|stop|status VMID
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const words = process.argv.slice(2);
const option = (name) => { const at = words.indexOf(`--${name}`); return at < 0 ? undefined : words.splice(at, 2)[1]; };
const [root, kernel, initrd, append] = ['root', 'kernel', 'initrd', 'append'].map(option);
const [act, vmid] = words;
const run = (extension) => join(root, 'var/run/qemu-server', `${vmid}.${extension}`);

function die(why) {
  process.stderr.write(`${why}\n`);
  process.exit(255);
}

/** `parse_vm_config`: of the guest as it is; a drive's file is a volume, a device or nothing (`filename_to_volume_id`). */
function readConfig() {
  const path = join(root, 'etc/pve/qemu-server', `${vmid}.conf`);
  if (!existsSync(path)) die(`Configuration file 'nodes/test/qemu-server/${vmid}.conf' does not exist`);
  const config = new Map();
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (/^\[/.test(line)) break;
    const [, key, value] = /^([a-z][a-z_-]*\d*):\s*(.+?)\s*$/.exec(line) ?? [];
    if (key === undefined) {
      if (line.trim() !== '' && !line.startsWith('#')) process.stderr.write(`vm ${vmid} - unable to parse config: ${line}\n`);
    } else if (/^(ide|sata|scsi|virtio)\d+$/.test(key) && !/^(none|cdrom|\/dev\/.+|[^:/]+:.+)$/.test(value.split(',')[0])) process.stderr.write(`vm ${vmid} - unable to parse value of '${key}'\n`);
    else config.set(key, value);
  }
  return config;
}

/** `PVE::Storage::path` of a folder's volume. */
function volumePath(volume) {
  const [storage, name] = volume.split(':');
  const section = new RegExp(`^dir: ${storage}\\n((?:\\s+.*\\n?)*)`, 'm').exec(readFileSync(join(root, 'etc/pve/storage.cfg'), 'utf8'))?.[1] ?? die(`storage '${storage}' does not exist`);
  if (!/^\s+content .*images/m.test(section)) die(`storage '${storage}' does not support content-type 'images'`);
  const path = join(root, /^\s+path (.*)$/m.exec(section)[1], 'images', name);
  if (!existsSync(path)) die(`volume '${volume}' does not exist`);
  return path;
}

/** Throttle, format, file: one node above the other, the topmost by the drive's name (`generate_drive_blockdev`). */
function drive(key, value, bootIndex) {
  const [volume, ...rest] = value.split(',');
  const of = Object.fromEntries(rest.map((pair) => pair.split('=')));
  const path = volumePath(volume);
  const common = { 'detect-zeroes': of.discard === 'on' ? 'unmap' : 'on', discard: of.discard === 'on' ? 'unmap' : 'ignore', 'read-only': false };
  const id = Buffer.from(volume).toString('hex').slice(-29);
  const cache = { direct: false, 'no-flush': false };
  const policies = ['rerror', 'werror'].flatMap((name) => (of[name] === undefined ? [] : [`,${name}=${of[name]}`])).join('');
  const thread = of.iothread === '1' ? ['-object', `iothread,id=iothread-${key}`] : [];
  if (!key.startsWith('virtio')) die(`${key}: this stand-in starts virtio drives alone`);
  return [
    ...thread, '-object', JSON.stringify({ id: `throttle-drive-${key}`, limits: {}, 'qom-type': 'throttle-group' }),
    '-blockdev', JSON.stringify({ ...common, driver: 'throttle', 'node-name': `drive-${key}`, 'throttle-group': `throttle-drive-${key}`, file: {
      ...common, cache, driver: path.split('.').at(-1), 'node-name': `f${id}`, file: { ...common, cache, driver: 'file', filename: path, 'node-name': `e${id}` },
    } }),
    '-device', `virtio-blk-pci,drive=drive-${key},id=${key},bus=pci.0,addr=0x${(10 + Number(key.slice(6))).toString(16)}${thread.length > 0 ? `,iothread=iothread-${key}` : ''},bootindex=${bootIndex}${policies}`,
  ];
}

function network(key, value) {
  const [card, ...rest] = value.split(',');
  const [model, mac] = card.split('=');
  if (rest.some((pair) => pair.startsWith('bridge='))) die(`${key}: there is no bridge for this stand-in`);
  return ['-netdev', `type=user,id=${key},hostname=vm${vmid}`, '-device', `${model}-net-pci,mac=${mac},netdev=${key},bus=pci.0,addr=0x${(18 + Number(key.slice(3))).toString(16)},id=${key}`];
}

/** `PVE::Tools::split_args`: as a shell's words. */
const split = (text) => [...text.matchAll(/(?:[^\s"']|"(?:[^"\\]|\\.)*"|'[^']*')+/g)].map(([word]) => word.replace(/"((?:[^"\\]|\\.)*)"|'([^']*)'/g, (_, double, single) => (double === undefined ? single : double.replace(/\\(.)/g, '$1'))));

function start() {
  const config = readConfig();
  if (pid() !== null) die(`VM ${vmid} already running`);
  if (config.has('lock')) die(`VM is locked (${config.get('lock')})`);
  if (config.get('kvm') !== '0') die('KVM virtualisation configured, but not available. Either disable in VM configuration or enable in BIOS.');
  const entries = [...config];
  const of = (pattern, make) => entries.flatMap(([key, value], at) => (pattern.test(key) ? make(key, value, at) : []));
  const { status } = spawnSync('qemu-system-x86_64', [
    // `-id` comes first there, which only Proxmox VE's QEMU knows.
    '-name', `${config.get('name') ?? `vm${vmid}`},debug-threads=on`, '-no-shutdown',
    '-chardev', `socket,id=qmp,path=${run('qmp')},server=on,wait=off`, '-mon', 'chardev=qmp,mode=control',
    '-chardev', `socket,id=qmp-event,path=${join(root, 'var/run/qmeventd.sock')},reconnect=5`, '-mon', 'chardev=qmp-event,mode=control',
    '-pidfile', run('pid'), '-daemonize', ...(config.has('smbios1') ? ['-smbios', `type=1,${config.get('smbios1')}`] : []),
    '-smp', `${config.get('cores') ?? 1},sockets=1,cores=${config.get('cores') ?? 1},maxcpus=${config.get('cores') ?? 1}`, '-nodefaults', '-vga', 'none', '-display', 'none', '-cpu', config.get('cpu') ?? 'qemu64', '-m', config.get('memory') ?? '512',
    ...(config.get('freeze') === '1' ? ['-S'] : []), ...(config.has('vmgenid') ? ['-device', `vmgenid,guid=${config.get('vmgenid')}`] : []),
    ...of(/^serial\d$/, (key) => ['-chardev', `socket,id=${key},path=${run(key)},server=on,wait=off`, '-device', `isa-serial,chardev=${key}`]),
    ...(/^(1|enabled=1)/.test(config.get('agent') ?? '') ? ['-chardev', `socket,path=${run('qga')},server=on,wait=off,id=qga0`, '-device', 'virtio-serial,id=qga0,bus=pci.0,addr=0x8', '-device', 'virtserialport,chardev=qga0,name=org.qemu.guest_agent.0'] : []),
    ...of(/^(ide|sata|scsi|virtio)\d+$/, (key, value, at) => (value.startsWith('none') ? [] : drive(key, value, 100 + at))),
    ...of(/^net\d+$/, network),
    '-machine', 'accel=tcg,type=pc',
    ...(kernel === undefined ? [] : ['-kernel', kernel, '-initrd', initrd, '-append', append]),
    ...split(config.get('args') ?? ''),
  ], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) die(`start failed: QEMU exited with code ${status}`);
}

function pid() {
  try {
    const found = Number(readFileSync(run('pid'), 'utf8'));
    return readFileSync(`/proc/${found}/cmdline`, 'utf8').includes(run('pid')) ? found : null;
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return null;
  }
}

/** `vm_stop`: quit, then what is left of it in the file system. */
async function stop() {
  if (pid() === null) return;
  readConfig();
  const socket = connect(run('qmp'));
  socket.on('error', () => undefined); // QEMU goes as it is told
  socket.write('{"execute":"qmp_capabilities"}{"execute":"quit"}');
  for (const endMs = Date.now() + 60_000; pid() !== null; await delay(50)) if (Date.now() > endMs) die('VM quit/powerdown failed - got timeout');
  for (const extension of ['qmp', 'pid', 'qga']) rmSync(run(extension), { force: true });
}

if (act === 'start') start();
else if (act === 'stop') await stop();
else if (act === 'status') process.stdout.write(`status: ${pid() === null ? 'stopped' : 'running'}\n`);
else die(`unknown command '${act}'`);
process.exit(0);
