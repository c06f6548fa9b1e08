/** Exports by the command as it is shipped, from a real target: every format, interrupted, killed, restarted, and disturbed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { GroupTimeline } from '../../replica-target/points/point-desk.ts';
import { ended } from '../console/built-command.ts';
import { run } from '../qemu/nbd-peers.ts';
import { waitFor } from '../support/wait.ts';
import { pointCount, RealTarget } from './real-target.ts';

const limit = { limitMs: 30_000 };

function isThere(path: string): Promise<boolean> {
  return access(path).then(() => true, () => false);
}

/** A qemu-img that waits while a file is there, and can spoil what it has written. */
async function wrapQemuImg(target: RealTarget): Promise<{ readonly environment: NodeJS.ProcessEnv; readonly gate: string; readonly spoil: string; readonly started: string }> {
  const folder = join(target.folder, 'bin');
  const [gate, spoil, started] = ['gate', 'spoil', 'started'].map((name) => join(folder, name)) as [string, string, string];
  const real = (await readPath('qemu-img'))!;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'qemu-img'), `#!/bin/sh
for last; do :; done
echo "$1" >> ${started}
while [ -e ${gate} ]; do sleep 0.05; done
[ "$1" = convert ] && [ -e ${spoil} ] || exec ${real} "$@"
${real} "$@" && printf spoilt | dd of="$last" bs=1 seek=5000 conv=notrunc 2>/dev/null
`);
  await chmod(join(folder, 'qemu-img'), 0o755);
  return { environment: { PATH: `${folder}:${process.env['PATH']}` }, gate, spoil, started };
}

async function readPath(name: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(':')) if (await isThere(join(folder, name))) return join(folder, name);
  return undefined;
}

async function timeline(target: RealTarget): Promise<GroupTimeline> {
  return target.client.timeline('vm1');
}

async function isSame(t: Test, target: RealTarget, path: string, format: string, point: number, disk: number): Promise<void> {
  const { code, said } = await run(t, 'qemu-img', ['compare', '-f', format, '-F', 'raw', path, await target.copy({ term: 1, point }, disk)]);
  t.equal(code, 0, `${path}: ${said}`);
}

t.test('exports', async (t) => {
  const target = await RealTarget.make(t);
  const to = join(target.folder, 'out');
  await mkdir(to);
  const args = (...more: string[]): string[] => ['export', 'vm1', '--to', to, '--config', target.config, ...more];

  await t.test('points: what can be had', async (t) => {
    const { code, stdout } = await target.command.run(['points', 'vm1', '--json', '--config', target.config]);
    t.equal(code, 0);
    const told = JSON.parse(stdout) as GroupTimeline;
    t.equal(told.points.at(-1)?.point, pointCount);
    t.match(told, { group: 'vm1', holds: [], ranges: [{ keptBy: 'all', to: { point: `1.${pointCount}` } }, { keptBy: 'some', from: { point: '1.1' } }] });
    t.match((await target.command.run(['points', 'vm1', '--config', target.config])).stdout, /^vm1: every point from .*\n\nPOINT /);
  });

  // Of points inside applied batches those can be had whose journal is still there.
  const { points } = await timeline(target);
  const [oldest, before, middle, after] = [0, -1, 0, 1].map((step, i) => points[i === 0 ? 0 : Math.floor(points.length / 2) + step]!.point) as [number, number, number, number];
  for (const [format, point] of [['raw', pointCount], ['qcow2', oldest], ['vmdk', middle], ['vhdx', middle], ['vdi', after]] as const) {
    await t.test(`${format}: identical to the point, with its facts beside it`, async (t) => {
      const { code, stdout, stderr } = await target.command.run(args('--at', `1.${point}`, '--format', format, '--json'));
      t.equal(code, 0, stderr);
      const folder = join(to, `vm1-1.${point}-${format}`);
      t.match(JSON.parse(stdout), { group: 'vm1', format, folder, disks: [{ name: 'drive0', path: join(folder, `drive0.${format}`) }, { name: 'drive1' }] });
      t.strictSame((await readdir(folder)).sort(), [`drive0.${format}`, `drive1.${format}`, 'export.json']);
      for (const disk of [0, 1]) await isSame(t, target, join(folder, `drive${disk}.${format}`), format, point, disk);
      const facts = JSON.parse(await readFile(join(folder, 'export.json'), 'utf8')) as unknown;
      t.match(facts, {
        version: 1, group: 'vm1', format, point: { id: `1.${point}`, kind: 'crash', cutAtMs: 1_700_000_000_000 + point * 1000 }, hardware: { machine: 'q35' },
        disks: [{ disk: 0, name: 'drive0', sizeBytes: target.guest.disks[0]!.length, fileName: `drive0.${format}` }, { disk: 1 }],
      });
    });
  }
  t.match(await target.command.run(args('--at', `1.${pointCount}`, '--format', 'raw')), { code: 1, stderr: /^EXPORT_FAILED: .*is there already, whole/ }, 'what is whole is not touched');
  t.match(await target.command.run(args('--at', '1.4711', '--format', 'raw')), { code: 1, stderr: /^POINT_UNKNOWN: vm1 has no point 1\.4711, or has it no longer; there are/ });
  t.strictSame((await timeline(target)).holds, [], 'no hold is left');

  await t.test('interrupted: nothing is left; killed: begun anew', async (t) => {
    const wrapped = await wrapQemuImg(target);
    await writeFile(wrapped.gate, '');
    const again = args('--at', `1.${middle}`, '--format', 'raw');
    const first = target.command.start(again, wrapped.environment);
    const firstEnd = ended(first);
    await waitFor(() => isThere(wrapped.started), { ...limit, what: 'qemu-img' });
    t.match((await timeline(target)).holds, [{ point: { term: 1, point: middle }, reason: 'export of vm1' }], 'held meanwhile');
    const other = await target.command.run(again);
    t.match(other, { code: 1, stderr: /^EXPORT_FAILED: .*another export is writing it/ });
    t.equal((await timeline(target)).holds.length, 1);
    first.kill('SIGINT');
    t.match(await firstEnd, { code: 1, stderr: /interrupted by SIGINT: nothing is left/ });
    t.notOk((await readdir(to)).some((name) => name.includes('.part')));
    t.strictSame((await timeline(target)).holds, []);

    await rm(wrapped.started);
    const second = target.command.start(again, wrapped.environment);
    const secondEnd = once(second, 'exit');
    await waitFor(() => isThere(wrapped.started), { ...limit, what: 'qemu-img' });
    second.kill('SIGKILL');
    await secondEnd;
    t.ok(await isThere(join(to, `vm1-1.${middle}-raw.part`)));
    const [left] = (await timeline(target)).holds;
    t.ok(left!.untilMs! <= Date.now() + 15 * 60_000, 'what is left of it ends by itself');
    await writeFile(join(to, `vm1-1.${middle}-raw.part`, 'drive0.raw'), 'half');
    await rm(wrapped.gate);
    t.match(await target.command.run(again, wrapped.environment), { code: 0, stdout: /is written and verified/ });
    for (const disk of [0, 1]) await isSame(t, target, join(to, `vm1-1.${middle}-raw/drive${disk}.raw`), 'raw', middle, disk);
    t.notOk((await readdir(to)).some((name) => name.includes('.part')));
    await target.client.releasePoint('vm1', left!.holdId);
  });

  await t.test('what does not verify is not kept', async (t) => {
    const wrapped = await wrapQemuImg(target);
    await writeFile(wrapped.spoil, '');
    t.match(await target.command.run(args('--at', `1.${before}`, '--format', 'raw'), wrapped.environment), { code: 1, stderr: /^EXPORT_FAILED: .*drive0\.raw does not hold what vm1\/drive0@1\.\d+ does/ });
    t.notOk((await readdir(to)).some((name) => name.startsWith(`vm1-1.${before}-raw`)));
    t.match(await target.command.run(['export', 'vm1', '--to', join(target.config, 'x'), '--format', 'raw', '--config', target.config]), { code: 1, stderr: /^EXPORT_FAILED: .*cannot be written/ });
    t.strictSame((await timeline(target)).holds, []);
  });

  await t.test('a target that is killed and started again: the same names, the same bytes, for new clients and old ones', async (t) => {
    const uris = JSON.parse((await target.command.run(['view', 'vm1', '--at', `1.${oldest}`, '--hold', '1h', '--json', '--config', target.config])).stdout) as { disks: { uri: string; exportName: string }[] };
    const { uri, exportName } = uris.disks[0]!;
    const copy = await target.copy({ term: 1, point: oldest }, 0);
    const isSameNow = async (): Promise<boolean> => (await run(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, copy])).code === 0;
    t.ok(await isSameNow());
    // One client that stays through all of it, as a guest would, and never sees an error.
    const image = { driver: 'raw', file: { driver: 'nbd', server: { type: 'unix', path: target.socketPath }, export: exportName, 'reconnect-delay': 60 } };
    const staying = spawn('qemu-io', ['-r', `json:${JSON.stringify(image)}`], { stdio: ['pipe', 'pipe', 'pipe'] });
    t.teardown(() => staying.kill('SIGKILL'));
    let said = '';
    for (const stream of [staying.stdout, staying.stderr]) stream.on('data', (text: Buffer) => { said += text.toString(); });
    const read = async (offset: number): Promise<Buffer> => {
      said = '';
      staying.stdin.write(`read -v ${offset} 512\n`);
      await waitFor(() => /512\/512 bytes|failed/.test(said), { ...limit, what: 'a read' });
      return Buffer.from(said.split('\n').filter((line) => /[0-9a-f]{8}:  /.test(line)).map((line) => line.replace(/^.*?[0-9a-f]{8}:  /, '').slice(0, 47).replaceAll(' ', '')).join(''), 'hex');
    };
    const bytes = target.guest.at({ term: 1, point: oldest })[0]!;
    const written = bytes.findIndex((byte) => byte !== 0);
    const at = written - (written % 512);
    t.ok((await read(at)).equals(bytes.subarray(at, at + 512)), said);
    await target.kill();
    const waiting = read(at + 512);
    await target.start();
    t.ok((await waiting).equals(bytes.subarray(at + 512, at + 1024)), said);
    t.ok(await isSameNow());
    t.ok((await timeline(target)).holds.some(({ point, reason }) => point.point === oldest && reason === 'view of vm1'), 'the hold is there as well');
  });
});
