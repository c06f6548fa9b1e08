/** The control socket asks the kernel who connected: a user that is neither root nor the daemon's own is refused by name, also when somebody has opened the socket to all. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import type { SourceOperations } from '../../daemon/operations.ts';
import type { NewEntry } from '../../host/audit-trail.ts';
import { openSourceControl } from '../../console/control.ts';
import { SourceClient } from '../../console/control-client.ts';

const stranger = 65_534;

t.test('a stranger is refused, and whoever may ask is noted by uid', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'peer-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const path = join(folder, 'control.sock');
  const noted: NewEntry[] = [];
  const paused: string[] = [];
  const operations = { report: () => ({ role: 'source' }), pause: (name: string) => { paused.push(name); return Promise.resolve(); } } as unknown as SourceOperations;
  const control = await openSourceControl(path, operations, pino({ level: 'silent' }), { audit: { note: (entry) => { noted.push(entry); return Promise.resolve(); }, alarms: () => [] } });
  t.teardown(() => control.close());
  await new SourceClient(path).pause('web');
  t.match(noted, [{ who: { kind: 'local', uid: process.geteuid!() }, act: 'pause', on: 'web', outcome: 'done' }]);
  if (process.geteuid!() !== 0) { t.comment('another user cannot be tried without root'); return; }

  await chmod(folder, 0o755);
  await chmod(path, 0o666);
  const asked = spawn(process.execPath, ['-e', `
    require('node:http').request({ socketPath: process.argv[1], path: '/v1/guests/db/pause', method: 'POST', headers: { 'content-type': 'application/json' } }, (reply) => {
      let text = ''; reply.on('data', (chunk) => { text += chunk; }); reply.on('end', () => console.log(reply.statusCode + ' ' + text));
    }).end('{}');`, path], { uid: stranger, gid: stranger, timeout: 20_000, cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] });
  let answer = '';
  asked.stdout.on('data', (chunk: Buffer) => { answer += chunk.toString(); });
  await once(asked, 'close');
  t.match(answer, /^403 .*CONTROL_PEER.*user 65534/);
  t.same(paused, ['web'], 'nothing was done');
});
