/**
 * Files that released versions wrote still read: a target's data folder (journal, history, replica, catalog, pairings) and a source's (identity,
 * pairing, guest). `AFTERIMAGE_GOLDEN=1` writes those of a release anew, by running it; what is there is not to be changed otherwise.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { BuiltCommand } from '../console/built-command.ts';
import { buildRelease, releases, type Release } from '../release/past-release.ts';
import { StandInGuest } from '../release/stand-in-guest.ts';
import { Daemon, startPair, type Teardown } from '../support/daemons.ts';
import { SourceClient, TargetClient } from '../../console/control-client.ts';

const run = promisify(execFile);

/** What the release's own target said of its points: their names, and what each disk held. */
interface Golden { readonly points: readonly { readonly name: string; readonly sha256: readonly string[] }[] }
const fileOf = (release: Release, kind: 'tar.gz' | 'json'): string => join(import.meta.dirname, `release-${release}.${kind}`);

async function contentOf(dataFolder: string, point: string): Promise<string[]> {
  return Promise.all([0, 1].map(async (disk) => {
    const { stdout } = await run('nbdcopy', [`nbd+unix:///web1/disk${disk}@${point}?socket=${join(dataFolder, 'points.sock')}`, '-'], { encoding: 'buffer', maxBuffer: 1 << 24 });
    return createHash('sha256').update(stdout).digest('hex');
  }));
}

async function goldenOf(target: TargetClient, dataFolder: string): Promise<Golden> {
  const names = (await target.points('web1')).map(({ term, point }) => `${term}.${point}`);
  return { points: await Promise.all(names.map(async (name) => ({ name, sha256: await contentOf(dataFolder, name) }))) };
}

async function make(t: Teardown & { teardown(after: () => unknown): unknown }, release: Release): Promise<void> {
  const { program } = await buildRelease(t, release);
  const pair = await startPair(t, { sourceProgram: program, targetProgram: program, targetConfig: 'retention: { window: 366d }' });
  const guest = await StandInGuest.start(t);
  await guest.protect(pair);
  await guest.settled(pair);
  for (const byte of [3, 4, 5]) {
    await guest.write(byte % 2, byte * 64 * 1024, byte);
    await guest.settled(pair);
  }
  await pair.source.kill('SIGTERM');
  await writeFile(fileOf(release, 'json'), `${JSON.stringify(await goldenOf(pair.target.client, join(pair.folder, 'target')), null, 2)}\n`);
  await pair.target.kill('SIGTERM');
  await run('tar', ['-C', pair.folder, '--sparse', '--owner=0', '--group=0', '--exclude=*.sock', '-czf', fileOf(release, 'tar.gz'), 'source', 'target']);
}

for (const release of Object.keys(releases) as Release[]) {
  t.test(`what ${release} wrote`, { timeout: 120_000 }, async (t) => {
    if (process.env['AFTERIMAGE_GOLDEN'] === '1') await make(t, release);
    t.ok(existsSync(fileOf(release, 'json')), 'there is something to read');
    const golden = JSON.parse(await readFile(fileOf(release, 'json'), 'utf8')) as Golden;
    const folder = await mkdtemp(join(tmpdir(), 'ai-gold-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    await run('tar', ['-C', folder, '-xzf', fileOf(release, 'tar.gz')]);
    const { program } = await BuiltCommand.build(t);

    await writeFile(join(folder, 'target.yaml'), `role: target\nname: bravo\nlisten: { host: 127.0.0.1, port: 0 }\nadvertise: 127.0.0.1:1\ndata: ${folder}/target\nkeepFree: 1MiB\ncontrol: ${folder}/t.sock\nretention: { window: 366d }\n`);
    const targetClient = new TargetClient(join(folder, 't.sock'));
    const target = new Daemon('target', folder, join(folder, 'target.yaml'), targetClient, () => targetClient.report());
    target.program = program;
    t.teardown(() => target.kill());
    await target.start();
    t.same(await goldenOf(targetClient, join(folder, 'target')), golden, 'every point is there, and holds what it held');
    t.ok(golden.points.length >= 4);
    t.same((await targetClient.verify('web1', undefined)).findings, [], 'nothing of it is damaged');

    await writeFile(join(folder, 'source.yaml'), `role: source\nname: alpha\ndata: ${folder}/source\ncontrol: ${folder}/s.sock\nspool: { folder: ${folder}/spool, budget: 64MiB, keepFree: 1MiB }\n`);
    const sourceClient = new SourceClient(join(folder, 's.sock'));
    const source = new Daemon('source', folder, join(folder, 'source.yaml'), sourceClient, () => sourceClient.report());
    source.program = program;
    t.teardown(() => source.kill());
    await source.start();
    const report = await sourceClient.report();
    t.match(report, { targets: [{ name: 'bravo' }], guests: [{ name: 'web1', target: 'bravo', rpoMs: 1000 }] }, 'the pairing and the guest are known');
    t.ok(report.guests[0]!.newestPoint !== null, 'and its last point');
  });
}
