/**
 * The story of there and back: a running guest is handed over to the other host, works there, and is brought home onto its old disk, with nothing lost.
 * Four daemons, two on each host, and a real guest; the ledger at the end is measured here, what differed by comparing the disks.
 */
import { copyFile, constants, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { tint } from '../../console/render/look.ts';
import { formatBytes, formatSpan } from '../../console/render/units.ts';
import type { SourceClient, TargetClient } from '../../console/control-client.ts';
import { formatPoint } from '../../journal/point.ts';
import { connectNbd } from '../../qemu/nbd-client.ts';
import type { FailoverResult } from '../../replica-target/operations.ts';
import { counterLines, type FailbackFigures, type Leg } from './figures.ts';
import { makeGuestDisk } from './guest-disk.ts';
import type { Screen } from './screen.ts';
import type { Role, Stage } from './stage.ts';
import { bootGuest, consoleLine, name, protect, startDaemons, stepMsMax, watch, type StoryOptions } from './story.ts';

/** The page in which file systems write. */
const blockBytes = 4096;

export async function playFailback(stage: Stage, screen: Screen, options: StoryOptions): Promise<FailbackFigures> {
  screen.title('A running guest is handed over to another host, works there, and is brought home');
  const disk = await makeGuestDisk(stage.folder, 'raw');
  const guest = await bootGuest(stage, screen, options, disk);
  await startDaemons(stage, screen);
  await startWayBack(stage, screen);
  const seedMs = await protect(stage, screen, guest, options);
  await watch(stage, screen, guest, options.watchMs);

  const there = await move(stage, screen, {
    host: 'bravo', command: 'failover', role: 'target', target: stage.target, carrier: { source: stage.source, to: 'bravo' }, alreadyMovedBytes: 0,
    follow: () => async () => { await guest.exited; return counterLines(guest.serial).at(-1)?.counter ?? 0; },
  });
  const left = join(stage.folder, 'as-it-was-left.raw');
  await copyFile(disk.path, left, constants.COPYFILE_FICLONE);
  await settleThere(stage, screen, options.watchMs);

  const back = await move(stage, screen, {
    host: 'alpha', command: 'failback', role: 'alpha-target', target: stage.alphaTarget, carrier: { source: stage.bravoSource, to: 'alpha' }, alreadyMovedBytes: null,
    follow: () => followCounter(there.logPath),
  });
  const rpoMs = await settleHome(stage, screen);
  const figures: FailbackFigures = {
    guest_disk_bytes: disk.sizeBytes, seed_ms: seedMs, there: there.leg,
    back: { ...back.leg, differed_bytes: await differedBytes(stage, left, formatPoint(back.result.point)) },
    points: countByTerm(await stage.target.points(name)), rpo_ms_at_end: rpoMs,
  };
  tellLedger(screen, figures);
  return figures;
}

/** Each host gets the role that it lacked, and each source knows the other host's target. */
async function startWayBack(stage: Stage, screen: Screen): Promise<void> {
  await stage.startDaemon('alpha-target');
  await stage.startDaemon('bravo-source');
  const token = (await stage.afterimage(['target', 'invite', '--config', stage.configPath('alpha-target')])).trim();
  await stage.afterimage(['pair', token, '--config', stage.configPath('bravo-source')]);
  screen.done('both ways', 'alpha has a target as well, and bravo a source, paired with it');
}

interface Move {
  readonly host: string;
  readonly command: 'failover' | 'failback';
  readonly role: Role;
  readonly target: TargetClient;
  /** Whose link carries what moves, and to which target. */
  readonly carrier: { readonly source: SourceClient; readonly to: string };
  /** Null: all that the link has carried so far counts. */
  readonly alreadyMovedBytes: number | null;
  /** From when it is called until what it returns is: the last counter that the guest reported before it went down. */
  follow(): () => Promise<number>;
}

async function move(stage: Stage, screen: Screen, { host, command, role, carrier, alreadyMovedBytes, follow }: Move): Promise<{ readonly leg: Leg; readonly logPath: string; readonly result: FailoverResult }> {
  const words = command === 'failover' ? ['failover', name, '--planned'] : ['failback', name];
  screen.typed(`afterimage ${words.join(' ')}    # at ${host}`);
  screen.live(command, 'the guest is shut down');
  const counted = follow();
  const movedBefore = await movedBytes(carrier);
  const result = JSON.parse(await stage.afterimage([...words, '--yes', '--json', '--config', stage.configPath(role)])) as FailoverResult;
  const ranAtMs = Date.now();
  const movedBytesWhileDown = await movedBytes(carrier) - movedBefore;
  const [, found] = await consoleLine(result.logPath, /^AF COUNTER-FOUND (\d+) \d+$/m);
  const downtimeMs = result.downtimeMs ?? 0;
  const rtoMs = downtimeMs + Date.now() - ranAtMs;
  const checked = await consoleLine(result.logPath, /^AF FSCK \w+ (clean|broken.*)$/m);
  const last = await counted();
  screen.done(command, `${name} runs at ${host}, from point ${formatPoint(result.point)} (${result.point.kind}); no guest ran for ${tint(screen.look, 'good', formatSpan(downtimeMs))}`);
  screen.done('guest', `up after ${formatSpan(rtoMs)}: its last counter was ${last}, it found ${found}, its file system ${checked[1]}`);
  return {
    result, logPath: result.logPath,
    leg: {
      counts_lost: Math.max(0, last - Number(found)), downtime_ms: Math.round(downtimeMs), rto_ms: Math.round(rtoMs),
      moved_bytes: movedBytesWhileDown + (alreadyMovedBytes ?? movedBefore), moved_bytes_while_down: movedBytesWhileDown, fsck_clean: checked[1] === 'clean',
    },
  };
}

/** Until the guest stands on its own disks there, its changes are points, and those are on their way home. */
async function settleThere(stage: Stage, screen: Screen, workMs: number): Promise<void> {
  screen.typed('afterimage status --watch    # at bravo');
  await until(async () => {
    const state = (await stage.target.report()).groups.find((group) => group.name === name)?.state;
    const [relay] = (await stage.bravoSource.report()).relays;
    screen.live('at bravo', `${state ?? '?'}; on the way home: ${relay?.phase ?? 'nothing yet'}`);
    return state === 'committed' && relay?.phase === 'protected';
  }, 'its points to be on their way home');
  const from = (await stage.alphaTarget.report()).groups[0]?.newest?.point ?? 0;
  const end = performance.now() + workMs;
  await until(async () => {
    const [group] = (await stage.alphaTarget.report()).groups;
    screen.live('at bravo', `the guest works; alpha has point ${group?.newest === null || group === undefined ? '–' : formatPoint(group.newest)}`);
    return performance.now() > end && (group?.newest?.point ?? 0) > from;
  }, 'points at home');
  const [group] = (await stage.alphaTarget.report()).groups;
  screen.done('at bravo', `the guest works, and its points go home onto its old disk: alpha has ${group?.newest == null ? 'none' : formatPoint(group.newest)}`);
}

/** Resolves to what a loss would cost now. */
async function settleHome(stage: Stage, screen: Screen): Promise<number> {
  let rpoMs = 0;
  await until(async () => {
    const guest = (await stage.source.report()).guests.find((one) => one.name === name);
    rpoMs = guest?.clocks.newestPointMs ?? Number.NaN;
    screen.live('at home', `${guest?.phase ?? '?'}: ${guest?.detail ?? ''}`);
    return guest?.phase === 'protected' && guest.newestPoint?.term === 3 && guest.newestPoint.point >= 2;
  }, 'protection as before');
  screen.done('at home', `protected to bravo as before; a loss now costs ${formatSpan(rpoMs)}`);
  return Math.round(rpoMs);
}

async function movedBytes({ source, to }: Move['carrier']): Promise<number> {
  return (await source.report()).targets.find((target) => target.name === to)?.sentBytes ?? 0;
}

/** Between the old disk as it was left, and the point that came home. */
async function differedBytes(stage: Stage, left: string, point: string): Promise<number> {
  const client = await connectNbd({ path: join(stage.folder, 'target', 'points.sock'), exportName: `${name}/0@${point}` });
  const file = await open(left, 'r');
  const before = Buffer.alloc(1 << 20);
  const after = Buffer.alloc(1 << 20);
  let differed = 0;
  try {
    for (let at = 0; at < client.sizeBytes; at += before.length) {
      const length = Math.min(before.length, client.sizeBytes - at);
      await Promise.all([file.read(before, 0, length, at), client.read(after, 0, length, at)]);
      if (before.equals(after)) continue;
      for (let block = 0; block < length; block += blockBytes) {
        if (!before.subarray(block, block + blockBytes).equals(after.subarray(block, block + blockBytes))) differed += blockBytes;
      }
    }
  } finally {
    await file.close();
    await client.close();
  }
  return differed;
}

/** The console's file goes away with the guest. */
function followCounter(path: string): () => Promise<number> {
  let last = 0;
  let isOver = false;
  const following = (async () => {
    while (!isOver) {
      try {
        last = Number([...(await readFile(path, 'utf8')).matchAll(/^AF COUNTER (\d+) \d+\r?$/gm)].at(-1)?.[1] ?? last);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
        throw error;
      }
      await delay(20);
    }
  })();
  // Whoever asks hears of it.
  following.catch(() => undefined);
  return async () => {
    isOver = true;
    await following;
    return last;
  };
}

function countByTerm(points: readonly { readonly term: number }[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { term } of points) counts[term] = (counts[term] ?? 0) + 1;
  return counts;
}

async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const endMs = performance.now() + stepMsMax;
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`waited too long for ${what}`);
    await delay(100);
  }
}

function tellLedger(screen: Screen, { there, back, points }: FailbackFigures): void {
  screen.title('The ledger');
  for (const [way, leg] of [['there', there], ['back', back]] as const) {
    const lost = leg.counts_lost === 0 ? tint(screen.look, 'good', 'nothing') : tint(screen.look, 'bad', `${leg.counts_lost} counts`);
    screen.done(way, `lost ${lost}; no guest ran for ${formatSpan(leg.downtime_ms)}, up after ${formatSpan(leg.rto_ms)}; ${formatBytes(leg.moved_bytes)} moved, ${formatBytes(leg.moved_bytes_while_down)} of it while no guest ran`);
  }
  screen.done('differed', `${formatBytes(back.differed_bytes)} of the old disk, when the guest came home`);
  screen.done('points', Object.entries(points).map(([term, count]) => `${count} of term ${term}`).join(', '));
}
