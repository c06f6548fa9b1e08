/**
 * The story that the demo tells, step by step, in the words of an operator. Nothing in it is staged: the daemons are those
 * that an operator runs, the guest's and the source's processes are killed with SIGKILL, and every figure is measured here.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { formatPass, type PassSample } from '../../console/render/pass-line.ts';
import { tint } from '../../console/render/look.ts';
import { formatBytes, formatSpan } from '../../console/render/units.ts';
import type { GuestReport } from '../../daemon/report.ts';
import type { FailoverResult } from '../../replica-target/operations.ts';
import type { LabGuest, LabGuestOptions } from '../lab/lab-guest.ts';
import { counterLines, lostMs, type Figures } from './figures.ts';
import { makeGuestDisk } from './guest-disk.ts';
import type { Screen } from './screen.ts';
import type { Stage } from './stage.ts';

export interface StoryOptions {
  readonly rpoMs: number;
  readonly capture: 'cbt' | 'writelog';
  readonly watchMs: number;
  readonly churnKib: number;
}

export const name = 'web1';
/** Far above what any step takes; a demo that hangs is worse than one that fails. */
export const stepMsMax = 180_000;

export async function play(stage: Stage, screen: Screen, options: StoryOptions): Promise<Figures> {
  screen.title('A running guest is protected, its host is lost, and it runs again from its replica');
  const disk = await makeGuestDisk(stage.folder);
  const guest = await bootGuest(stage, screen, options, disk);
  const sourcePid = await startDaemons(stage, screen);
  const seedMs = await protect(stage, screen, guest, options);
  const watched = await watch(stage, screen, guest, options.watchMs);
  const { points, lines, killedAtMs } = await loseHost(stage, screen, guest, sourcePid);
  const found = await failOver(stage, screen);

  const written = lines.at(-1)?.counter ?? 0;
  const figures: Figures = {
    guest_disk_bytes: disk.sizeBytes,
    seed_ms: seedMs,
    points,
    rpo_ms_p50: Math.round(watched.rpo.p50Ms ?? Number.NaN),
    rpo_ms_p99: Math.round(watched.rpo.p99Ms ?? Number.NaN),
    rto_ms: found.rtoMs,
    counter_written: written,
    counter_recovered: found.counter,
    lost_ms: lostMs(lines, found.counter, killedAtMs),
    fsck_clean: found.isClean,
  };
  tellResult(screen, figures);
  return figures;
}

export async function bootGuest(stage: Stage, screen: Screen, options: StoryOptions, disk: Awaited<ReturnType<typeof makeGuestDisk>>, more: Pick<LabGuestOptions, 'extraArgs' | 'timeLimitMs'> = {}): Promise<LabGuest> {
  screen.live('guest', 'booting');
  const begin = performance.now();
  const guest = await stage.startGuest({
    disks: [{ path: disk.path, format: disk.format, iothread: true }],
    mode: 'counter',
    churn: options.churnKib,
    timeLimitMs: 15 * 60_000,
    ...more,
  });
  await guest.waitForLine(/^AF READY counter /, stepMsMax);
  screen.done('guest', `${name} booted in ${formatSpan(performance.now() - begin)}: a disk of ${formatBytes(disk.sizeBytes)} with ${formatBytes(disk.dataBytes)} of files,`);
  screen.done('', `a counter that is fsynced again and again, and ${formatBytes(options.churnKib * 1024)}/s of other writes`);
  return guest;
}

/** Resolves to the source's pid. */
export async function startDaemons(stage: Stage, screen: Screen): Promise<number> {
  screen.typed('afterimage target run --config target.yaml');
  await stage.startDaemon('target');
  screen.done('target', `listens at ${(await stage.target.report()).address}`);
  screen.typed('afterimage source run --config source.yaml');
  const sourcePid = await stage.startDaemon('source');
  screen.done('source', 'runs');
  screen.typed('afterimage pair $(afterimage target invite)');
  const token = (await stage.afterimage(['target', 'invite', '--config', stage.configPath('target')])).trim();
  screen.done('source', (await stage.afterimage(['pair', token, '--config', stage.configPath('source')])).trim());
  return sourcePid;
}

/** Resolves to the time from asking until the first point was acknowledged. */
export async function protect(stage: Stage, screen: Screen, guest: LabGuest, { rpoMs, capture }: StoryOptions): Promise<number> {
  const rpo = rpoMs % 1000 === 0 ? `${rpoMs / 1000}s` : `${rpoMs}ms`;
  const options = ['--rpo', rpo, ...(capture === 'cbt' ? [] : ['--capture', capture])];
  screen.typed(`afterimage protect ${name} --qmp ${guest.qmpPath} ${options.join(' ')}`);
  const begin = performance.now();
  await stage.afterimage(['protect', name, '--qmp', guest.qmpPath, ...options, '--config', stage.configPath('source')]);
  let sample: PassSample | null = null;
  let sentBytes = 0;
  const report = await until(stage, (report, atMs) => {
    if (report.pass !== null) {
      screen.live('first sync', formatPass(screen.look, report.pass, atMs, sample));
      if (sample === null || atMs - sample.atMs > 2_000) sample = { atMs, doneBytes: report.pass.doneBytes };
      sentBytes = report.pass.sentBytes;
    } else {
      screen.live('first sync', `${report.phase}: ${report.detail}`);
    }
    return report.newestPoint !== null;
  });
  const seedMs = Math.round(performance.now() - begin);
  const sent = sentBytes > 0 ? `, ${formatBytes(sentBytes)} sent` : '';
  screen.done('first sync', `${tint(screen.look, 'good', 'done')} in ${formatSpan(seedMs)}${sent}; point ${report.newestPoint?.point ?? '?'} can be booted`);
  return seedMs;
}

/** Shows what a loss would cost, as it changes. Resolves to the last report. */
export async function watch(stage: Stage, screen: Screen, guest: LabGuest, watchMs: number): Promise<GuestReport> {
  const end = performance.now() + watchMs;
  screen.typed('afterimage status --watch');
  const report = await until(stage, (report) => {
    const counter = counterLines(guest.serial.slice(-20)).at(-1)?.counter ?? 0;
    const now = report.clocks.newestPointMs;
    const tone = now !== null && now <= 2 * report.rpoMs ? 'good' : 'working';
    screen.live(
      'protected',
      `point ${report.newestPoint?.point ?? '–'}, a loss now costs ${tint(screen.look, tone, formatSpan(now).padStart(5))}, RPO p99 ${formatSpan(report.rpo.p99Ms)}, counter ${counter}`,
    );
    // Three samples are no distribution, but without any there is no figure.
    return performance.now() > end && report.rpo.samples >= 3;
  });
  const how = report.capture?.capture === 'writelog' ? ', cut from write logs' : '';
  screen.done('protected', `${report.rpo.samples} points${how}: RPO p50 ${formatSpan(report.rpo.p50Ms)}, p99 ${formatSpan(report.rpo.p99Ms)}, worst ${formatSpan(report.rpo.maxMs)}`);
  return report;
}

async function loseHost(
  stage: Stage, screen: Screen, guest: LabGuest, sourcePid: number,
): Promise<{ points: number; lines: ReturnType<typeof counterLines>; killedAtMs: number }> {
  // As a host that loses power: the guest and the source end at once, and neither can say goodbye.
  const killedAtMs = performance.now();
  await Promise.all([guest.kill(), stage.killDaemon('source')]);
  const lines = counterLines(guest.serial);
  screen.typed(`kill -9 ${guest.pid} ${sourcePid}    # the guest's QEMU and the source: the host is lost`);
  screen.done('guest', `${tint(screen.look, 'bad', 'dead')}; the last counter that it had fsynced is ${lines.at(-1)?.counter ?? 0}`);
  const points = (await stage.target.points(name)).length;
  return { points, lines, killedAtMs };
}

async function failOver(stage: Stage, screen: Screen): Promise<{ counter: number; isClean: boolean; rtoMs: number }> {
  screen.typed(`afterimage failover ${name}`);
  screen.live('failover', 'asked for');
  const begin = performance.now();
  const result = JSON.parse(await stage.afterimage(['failover', name, '--yes', '--json', '--config', stage.configPath('target')])) as FailoverResult;
  screen.live('failover', `QEMU runs again, from point ${result.point.point}`);
  const found = await consoleLine(result.logPath, /^AF COUNTER-FOUND (\d+) \d+$/m);
  const rtoMs = Math.round(performance.now() - begin);
  screen.done('failover', `booted from point ${result.point.point}, up again in ${tint(screen.look, 'good', formatSpan(rtoMs))}`);
  const checked = await consoleLine(result.logPath, /^AF FSCK \w+ (clean|broken.*)$/m);
  // Running again is more than having booted: it counts on from where it was.
  const counting = await consoleLine(result.logPath, new RegExp(`^AF COUNTER ${Number(found[1]) + 10} \\d+$`, 'm'));
  screen.done('guest', `found its counter at ${found[1]}, its file system ${checked[1]}, and counts on: ${counting[0].split(' ')[2]}`);
  return { counter: Number(found[1]), isClean: checked[1] === 'clean', rtoMs };
}

function tellResult(screen: Screen, figures: Figures): void {
  const behind = Math.max(0, figures.counter_written - figures.counter_recovered);
  screen.title('What it cost');
  screen.done('lost', `${formatSpan(figures.lost_ms)} (${behind} of ${figures.counter_written} counts)`);
  screen.done('RPO', `p50 ${formatSpan(figures.rpo_ms_p50)}, p99 ${formatSpan(figures.rpo_ms_p99)}`);
  screen.done('RTO', `${formatSpan(figures.rto_ms)}, of which most is the guest's own boot`);
  screen.done('disk', figures.fsck_clean ? tint(screen.look, 'good', 'clean') : tint(screen.look, 'bad', 'broken'));
}

/** Asks the source for its report until `isEnough`. */
async function until(stage: Stage, isEnough: (report: GuestReport, atMs: number) => boolean): Promise<GuestReport> {
  const begin = performance.now();
  let last: GuestReport | undefined;
  for (;;) {
    const { guests, atMs } = await stage.source.report();
    last = guests.find((guest) => guest.name === name) ?? last;
    if (last !== undefined && isEnough(last, atMs)) return last;
    if (performance.now() - begin > stepMsMax) throw new Error(`${name} is ${last?.phase ?? 'unknown'} (${last?.detail ?? ''}) and does not get on; last fault: ${JSON.stringify(last?.lastFault)}`);
    await delay(100);
  }
}

/** The first match in the console of a guest that a failover started. */
export async function consoleLine(path: string, pattern: RegExp): Promise<RegExpExecArray> {
  const until = performance.now() + stepMsMax;
  for (;;) {
    const text = (await readFile(path, 'utf8')).replaceAll('\r', '');
    const match = pattern.exec(text);
    if (match !== null) return match;
    if (/Kernel panic|AF FAILED mount/.test(text) || performance.now() > until) {
      throw new Error(`the guest did not say ${String(pattern)}; its console:\n${text.slice(-2000)}`);
    }
    await delay(10);
  }
}
