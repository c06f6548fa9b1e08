/** The quick start, as a person runs it: it keeps its promises, and it leaves nothing behind, also when it is interrupted. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';

import { isLong } from '../support/extent.ts';
import { waitFor } from '../support/wait.ts';

const program = join(import.meta.dirname, '..', '..', 'dist', 'scripts', 'demonstration', 'main.js');

interface Played { readonly status: number | null; readonly output: string; readonly story: string; readonly leftFiles: string[]; readonly leftProcesses: string[] }

async function playDemo(t: { teardown(end: () => Promise<void>): unknown }, words: readonly string[], interruptAt?: RegExp): Promise<Played> {
  // A temporary folder of its own shows what was left in it, and names whatever process is left that uses it.
  const folder = await mkdtemp('/tmp/af-dt-');
  const child = spawn(process.execPath, [program, ...words], { env: { ...process.env, TMPDIR: folder }, stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'close');
  t.teardown(async () => {
    child.kill('SIGKILL');
    await exited;
    await rm(folder, { recursive: true, force: true });
  });
  let output = '';
  let story = '';
  child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  child.stderr.on('data', (chunk: Buffer) => { story += chunk.toString(); });
  if (interruptAt !== undefined) {
    await waitFor(() => interruptAt.test(story) || child.exitCode !== null, { limitMs: 120_000, what: `the demo to say ${String(interruptAt)}` });
    child.kill('SIGINT');
  }
  await exited;
  return { status: child.exitCode, output, story, leftFiles: await readdir(folder), leftProcesses: await processesThatName(folder) };
}

async function processesThatName(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    // A process may end while it is being looked at.
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ESRCH') return '';
      throw error;
    });
    if (words.includes(text)) found.push(`${pid} ${words.replaceAll('\0', ' ')}`);
  }
  return found;
}

t.test('the guest comes back from its replica, at most about one RPO behind', async (t) => {
  const { status, output, story, leftFiles, leftProcesses } = await playDemo(t, ['--json', '--watch', '8s']);
  if (!t.equal(status, 0, 'it ends well')) t.comment(story);
  const figures = JSON.parse(output.trim().split('\n').at(-1) ?? '') as Record<string, number | boolean>;
  t.strictSame(Object.keys(figures), [
    'guest_disk_bytes', 'seed_ms', 'points', 'rpo_ms_p50', 'rpo_ms_p99', 'rto_ms', 'counter_written', 'counter_recovered', 'lost_ms', 'fsck_clean',
  ]);
  t.equal(figures['guest_disk_bytes'], 1 << 30);
  t.equal(figures['fsck_clean'], true);
  const recovered = Number(figures['counter_recovered']);
  t.ok(recovered > 0, 'the counter is there');
  t.ok(Number(figures['counter_written']) > recovered || figures['lost_ms'] === 0, 'what was lost is told');
  for (const key of ['seed_ms', 'points', 'rpo_ms_p50', 'rpo_ms_p99', 'rto_ms']) t.ok(Number(figures[key]) > 0, key);
  t.strictSame(leftFiles, [], 'no file is left');
  t.strictSame(leftProcesses, [], 'no process is left');
});

if (isLong) t.test('three older points boot while protection goes on', async (t) => {
  const { status, output, story, leftFiles, leftProcesses } = await playDemo(t, ['--points', '--json', '--watch', '6s']);
  if (!t.equal(status, 0, 'it ends well')) t.comment(story);
  const figures = JSON.parse(output.trim().split('\n').at(-1) ?? '') as { readonly tests: readonly Record<string, unknown>[] } & Record<string, unknown>;
  t.match(figures, { agrees: true, leftovers: 0, rpo_ms: 1000 });
  t.ok(Number(figures['points_while_testing']) > 0);
  t.equal(figures.tests.length, 3);
  for (const tested of figures.tests) {
    t.match(tested, { agrees: true, fsck_clean: true });
    t.ok(Number(tested['counter_found']) > 0 && Number(tested['rto_ms']) > 0);
  }
  t.strictSame(leftFiles, [], 'no file is left');
  t.strictSame(leftProcesses, [], 'no process is left');
});

for (const [when, line] of [['while the first sync runs', /first sync /], ['in the middle of the failover', /failover +asked for/]] as const) {
  if (when !== 'while the first sync runs' && !isLong) continue;
  t.test(`interrupted ${when}, it leaves nothing behind`, async (t) => {
    const { status, output, story, leftFiles, leftProcesses } = await playDemo(t, ['--json', '--watch', '1s'], line);
    if (!t.equal(status, 130, 'it says that it was interrupted')) t.comment(story);
    t.equal(output, '');
    t.strictSame(leftFiles, [], 'no file is left');
    t.strictSame(leftProcesses, [], 'no process is left');
  });
}
