/** What a service manager hears, over a real notify socket, of a daemon that lives, that is of no use, and that lives again. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { openServiceNotifier } from '../../console/service-notify.ts';
import { waitFor } from '../support/wait.ts';

t.test('the watchdog is fed while the daemon says that it lives, and not otherwise', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'ai-sd-'));
  const path = join(folder, 'notify');
  const receiver = spawn('socat', ['-u', `UNIX-RECV:${path}`, 'STDOUT'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let told = '';
  receiver.stdout.on('data', (chunk: Buffer) => { told += chunk.toString('utf8'); });
  t.teardown(() => { receiver.kill('SIGKILL'); rmSync(folder, { recursive: true }); });
  await waitFor(() => existsSync(path), { limitMs: 10_000, what: 'socat to listen' });
  const heard = (what: RegExp, count: number): Promise<true> => waitFor(() => (told.match(new RegExp(what, 'g'))?.length ?? 0) >= count, { limitMs: 10_000, what: `${what} ${count} times` });

  const notifier = await openServiceNotifier(pino({ level: 'silent' }), { NOTIFY_SOCKET: path, WATCHDOG_USEC: '40000', WATCHDOG_PID: String(process.pid) });
  notifier.starting();
  await heard(/EXTEND_TIMEOUT_USEC=60000000/, 1);
  let answer: string | null = null;
  let asked = 0;
  let hanging: (() => void) | null = null;
  let isHanging = false;
  notifier.ready(async () => {
    asked += 1;
    if (isHanging) await new Promise<void>((resolve) => { hanging = resolve; });
    return answer;
  });
  await heard(/WATCHDOG=1/, 3);
  answer = 'its report: nobody\nanswers';
  await heard(/STATUS=its report: nobody answers/, 1);
  const fed = told.match(/WATCHDOG=1/g)!.length;
  const before = asked;
  await waitFor(() => asked >= before + 5, { limitMs: 10_000, what: 'five more questions' });
  t.equal(told.match(/WATCHDOG=1/g)!.length, fed, 'not fed');
  answer = null;
  await heard(/WATCHDOG=1/, fed + 1);
  isHanging = true;
  await waitFor(() => hanging !== null, { limitMs: 10_000, what: 'a question without an answer' });
  const hung = asked;
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.equal(asked, hung, 'it is not asked again before it has answered');
  isHanging = false;
  hanging!();
  await heard(/WATCHDOG=1/, fed + 3);
  notifier.stopping();
  await heard(/STOPPING=1$/, 1);
});
