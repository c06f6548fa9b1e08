/** Load on a stand-in's NBD exports: random writes of random sizes, zeroes and discards among them. Not a suite. */
import { spawn } from 'node:child_process';
import type { StandIn, Teardown } from './storage-daemon.ts';

export interface Load { stop(): Promise<void>; readonly failed: () => string }

/** Until stopped. `iops` bounds it per disk and kind, as the tests share the machine. */
export function startLoad(t: Teardown, standIn: StandIn, iops = 400): Load {
  let said = '';
  const running = standIn.disks.map(({ name, sizeBytes }) => {
    const size = Math.floor(sizeBytes / 65536) * 65536;
    const common = ['--ioengine=nbd', `--uri=nbd+unix:///${name}?socket=${standIn.nbdPath}`, `--size=${size}`, '--time_based', '--runtime=100', '--randrepeat=0', '--norandommap=1', '--thread=1'];
    const child = spawn('fio', [
      '--output-format=terse',
      // In bytes: with a range of sizes fio takes a rate of operations for one of the smallest.
      '--name=mixed', ...common, `--rate=${iops * 64}k`, '--rw=randwrite', '--bsrange=4k-128k', '--blockalign=4k', '--iodepth=8',
      '--name=zeroes', ...common, `--rate_iops=${Math.ceil(iops / 8)}`, '--rw=randwrite', '--bs=64k', '--zero_buffers=1', '--iodepth=2',
      '--name=discards', ...common, `--rate_iops=${Math.ceil(iops / 8)}`, '--rw=randtrim', '--bs=128k', '--iodepth=2',
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.on('data', (bytes: Buffer) => { said += bytes.toString(); });
    const over = new Promise<void>((resolve) => { child.once('close', () => resolve()); });
    return { child, over };
  });
  const stop = async (): Promise<void> => {
    for (const { child } of running) child.kill('SIGINT');
    await Promise.all(running.map(({ over }) => over));
  };
  t.teardown(async () => {
    for (const { child } of running) child.kill('SIGKILL');
    await Promise.all(running.map(({ over }) => over));
  });
  return { stop, failed: () => said.split('\n').filter((line) => /error|fail/i.test(line)).join('\n') };
}
