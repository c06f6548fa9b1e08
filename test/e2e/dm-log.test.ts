/**
 * A device whose writes the kernel logs, protected by real source and target processes through the command line. The test plays the
 * kernel on files, and `dmsetup`, which hands it the marks.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { LogWritesKernel } from '../capture/support/log-writes-kernel.ts';
import { startPair } from '../support/daemons.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const main = join(import.meta.dirname, '..', '..', 'dist', 'console', 'main.js');
const deviceBytes = 16 * 1024 * 1024;

/** A `dmsetup` first in the path, which does what `message DEVICE 0 mark TEXT` does to this kernel. */
async function standInForDmsetup(t: Test, kernel: LogWritesKernel, folder: string): Promise<void> {
  const socketPath = join(folder, 'marks');
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let text = '';
    socket.on('data', (chunk: Buffer) => { text += chunk.toString(); });
    socket.on('end', () => { void kernel.mark(text).then(() => socket.end()); });
  }).listen(socketPath);
  await once(server, 'listening');
  t.teardown(() => server.close());
  const program = join(folder, 'dmsetup');
  await writeFile(program, `#!/bin/sh
[ "$1 $2 $3 $4" = "message ${kernel.devicePath} 0 mark" ] || exit 1
printf %s "$5" | socat -t 10 - UNIX-CONNECT:${socketPath}
`);
  await chmod(program, 0o755);
  const before = process.env['PATH'];
  process.env['PATH'] = `${folder}${delimiter}${before}`;
  t.teardown(() => { process.env['PATH'] = before; });
}

t.test('protected, source and target killed, and gone on without a comparison', { timeout: 110_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'af-dml-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const kernel = await LogWritesKernel.onFiles(folder, deviceBytes);
  t.teardown(() => kernel.close());
  await standInForDmsetup(t, kernel, folder);
  const pair = await startPair(t);
  const afterimage = (...args: readonly string[]) => run(process.execPath, [main, ...args, '--config', pair.source.configPath]);

  await t.rejects(afterimage('protect', 'db', '--device', kernel.devicePath), { code: 64, stderr: /--log/ });
  await t.rejects(afterimage('protect', 'db', '--device', kernel.devicePath, '--log', kernel.logPath, '--qmp', '/q'), { code: 64 });
  await kernel.write(7, Buffer.alloc(3 * 1024 * 1024, 'before '));
  await afterimage('protect', 'db', '--device', kernel.devicePath, '--log', kernel.logPath, '--rpo', '200ms');
  await pair.newPoint('db');

  /** Writes on until a point is there that has it; then the replica must be what the device holds. */
  const isEqual = async (text: string): Promise<void> => {
    for (let index = 0; index < 50; index += 1) await kernel.write(Math.floor(Math.random() * 30_000), Buffer.alloc(512 * (1 + index % 16), `${text} ${index}`), index % 5 === 0 ? 2 : 0);
    kernel.flush();
    const { stdout } = await afterimage('mark', 'db', '--label', text, '--json');
    const marked = JSON.parse(stdout) as { point: number; kind: string };
    t.equal(marked.kind, 'mark');
    await waitFor(async () => ((await pair.group('db')).applied?.point ?? 0) >= marked.point, { limitMs: 30_000, what: 'the point to be applied' });
    t.ok((await readFile((await pair.group('db')).disks[0]!.replicaPath)).equals(await readFile(kernel.devicePath)), `the replica is the device: ${text}`);
  };
  await isEqual('first');
  const report = await pair.guest('db');
  t.match(report, { phase: 'protected', capture: { capture: 'writelog' }, disks: [{ name: 'device', sizeBytes: deviceBytes }] });
  await t.rejects(afterimage('capture', 'db', 'cbt'), { code: 1 });

  await pair.source.kill();
  await kernel.write(100, Buffer.alloc(8192, 'meanwhile '));
  await pair.source.start();
  await isEqual('after a kill');
  t.notMatch(await pair.source.log(), /resync:/, 'without a comparison');

  await pair.target.kill();
  await kernel.write(300, Buffer.alloc(8192, 'target down '));
  await pair.target.start();
  await isEqual('after the target was away');

  await afterimage('unprotect', 'db');
  t.strictSame((await pair.source.client.report()).guests, []);
});
