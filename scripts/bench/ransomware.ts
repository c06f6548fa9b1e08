/**
 * What the ransomware signal sees: guests with a real file system that is encrypted, in several ways, or that do honest work,
 * through the product's own source and target. Stated: attacks noticed and missed, false alarms, seconds from the first encrypted
 * file to the alarm, whether the point that is named as the one before holds no encrypted file, and what looking costs the target.
 */
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { comparePoints } from '../../journal/point.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';
import type { SuspicionFlag } from '../../replica-target/suspicion/group-suspicion.ts';
import type { Benchmark } from './benchmark.ts';
import { endDaemon, startSource, startTarget, untilProtected } from './daemons.ts';
import { rounded, spreadOf } from './figures.ts';
import { startGuest, diskNode } from './ransomware/guest.ts';
import { makeMaterial, type Material } from './ransomware/material.ts';
import { measureCost } from './ransomware/cost.ts';
import { scenarios, type Scenario } from './ransomware/scenarios.ts';
import { until, type Site } from './site.ts';

const rpoMs = 2000;
/** An attack that takes longer than this without an alarm is missed; honest work is ended after the second, ms. */
const attackMsMax = 120_000;
const loadMsMax = 45_000;
/** From the load's end to a later point's being applied at the target, ms. */
const appliedMsMax = 180_000;
/** Of a point of so many bytes every block is looked at (block-sampler.ts, 384 of 4 KiB). */
const wholeBytes = 384 * 4096;

interface Stand { readonly site: Site; readonly source: Awaited<ReturnType<typeof startSource>>; readonly target: Awaited<ReturnType<typeof startTarget>>; readonly material: Material }

/** A load that could not be measured. */
interface Failure { readonly load: string; readonly seed: number; readonly why: string }

/** By its JSON names. */
interface Outcome {
  readonly load: string; readonly kind: Scenario['kind']; readonly seed: number; readonly tuning: boolean; readonly group_id: string;
  readonly alarm: boolean; readonly alarm_kind: SuspicionFlag['kind'] | null; readonly seconds_to_alarm: number | null; readonly load_seconds: number;
  /** Of an attack that was noticed: the point that is named holds none of it ({@link isClean}); and how long before its first write that was cut. */
  readonly before_is_clean: boolean | null; readonly before_seconds: number | null;
  readonly evidence_mib: number | null;
}

export const ransomware: Benchmark = async ({ site, say, arguments: { sizeBytes, runs, only, profileFolder } }) => {
  if (process.getuid?.() !== 0) throw new Error('this benchmark mounts file systems: it needs root');
  const chosen = scenarios.filter(({ load }) => only === null || only.includes(load));
  if (chosen.length === 0) throw new Error(`no such load; there are ${scenarios.map(({ load }) => load).join(', ')}`);
  const material = await makeMaterial(process.env['AFTERIMAGE_BENCH_MATERIAL'] ?? site.path('material'), sizeBytes);
  say(`material: ${JSON.stringify(material.facts)}`);
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
  const outcomes: Outcome[] = [];
  const failures: Failure[] = [];
  for (let seed = 1; seed <= runs; seed++) for (const scenario of chosen) {
    try {
      const outcome = await measured({ site, source, target, material }, scenario, seed);
      outcomes.push(outcome);
      say(JSON.stringify(outcome));
    } catch (error) {
      if (outcomes.length === 0 || site.isCleared) throw error;
      // Half an hour of figures is not given up for one that could not be taken.
      failures.push({ load: scenario.load, seed, why: error instanceof Error ? error.message : String(error) });
      say(JSON.stringify(failures.at(-1)));
    }
  }
  // For whoever chooses limits: what each point changed, all of which is written when the target ends.
  await endDaemon(target);
  const keepFolder = process.env['AFTERIMAGE_BENCH_KEEP'];
  if (keepFolder !== undefined) for (const { load, seed, group_id: groupId } of outcomes) await copyFile(join(target.groupsFolder, groupId, 'suspicion.json'), join(keepFolder, `${load}-${seed}.json`));
  const cost = only === null ? await measureCost(site, material.usedImage) : null;
  return resultOf(outcomes, failures, runs, sizeBytes, material.facts, cost);
};

/** One load, on a guest of its own. */
async function measured({ site, source, target, material }: Stand, scenario: Scenario, seed: number): Promise<Outcome> {
  const name = `${scenario.load}-${seed}`;
  const imagePath = site.freshPath('guest.raw');
  await site.run('cp', ['--sparse=always', scenario.isUsedDisk ? material.usedImage : material.freshImage, imagePath]);
  const stand = await startGuest(site, imagePath);
  let end = stand.end;
  try {
    const { groupId } = await source.client.protect({ name, qmpPath: stand.qmpPath, rpoMs, storageDaemonDisks: [diskNode] });
    await untilProtected(source, name);
    const guest = await stand.begin(scenario.load, seed, material.folder);
    end = () => guest.end();
    const firstMs = await until('the load begins', () => guest.firstMs(), { running: guest.load, limitMs: 60_000, everyMs: 20 });
    let flag: SuspicionFlag | null = null;
    const look = async (): Promise<void> => { flag ??= (await target.client.report()).groups.find((group) => group.name === name)?.suspicion?.active ?? null; };
    while (!guest.isDone && flag === null && Date.now() - firstMs < (scenario.kind === 'attack' ? attackMsMax : loadMsMax)) {
      if (guest.load.isGone) throw new Error(`${name} failed: ${guest.load.lastWords()}`);
      await look();
      await delay(100);
    }
    const loadSeconds = rounded((Date.now() - firstMs) / 1000, 1);
    // Whatever the machine's speed: judged is what the load did, not what of it had arrived.
    const endedMs = Date.now();
    await until('what the load wrote is applied', async () => {
      await look();
      return flag !== null || (await target.client.timeline(name)).points.some(({ cutAtMs, changes }) => cutAtMs > endedMs && changes !== undefined);
    }, { limitMs: appliedMsMax, everyMs: 100 });
    await look();
    const outcome = await outcomeOf(scenario, seed, groupId, firstMs, loadSeconds, flag, async () => (await target.client.timeline(name)).points);
    await source.client.unprotect(name, false);
    return outcome;
  } finally {
    await end();
    await site.run('rm', ['-f', imagePath]);
  }
}

async function outcomeOf(
  { load, kind, isTuning }: Scenario, seed: number, groupId: string, firstMs: number, loadSeconds: number, flag: SuspicionFlag | null, points: () => Promise<readonly RestorePoint[]>,
): Promise<Outcome> {
  const all = flag === null ? [] : await points();
  const before = all.find((point) => flag?.before != null && comparePoints(point, flag.before) === 0);
  const beforeMs = before === undefined ? null : firstMs - before.cutAtMs;
  return {
    load, kind, seed, tuning: isTuning, group_id: groupId, alarm: flag !== null, alarm_kind: flag?.kind ?? null, seconds_to_alarm: flag === null ? null : rounded((flag.sinceMs - firstMs) / 1000, 1), load_seconds: loadSeconds,
    before_is_clean: kind !== 'attack' || before === undefined ? null : isClean(all, before, firstMs), before_seconds: beforeMs === null ? null : rounded(beforeMs / 1000, 1), evidence_mib: flag === null ? null : rounded(flag.bytes / 1024 ** 2, 1),
  };
}

/**
 * Whether a point holds nothing of an attack: it was cut before the attack's first write (into the guest's page cache), or nothing
 * that came since until it was noise. That can be said of points of which every block is looked at.
 */
function isClean(points: readonly RestorePoint[], named: RestorePoint, firstMs: number): boolean {
  return points.filter((point) => point.cutAtMs >= firstMs && comparePoints(point, named) <= 0)
    .every(({ changes }) => changes !== undefined && changes.bytes <= wholeBytes && (changes.incompressibleShare ?? 0) === 0);
}

function resultOf(outcomes: readonly Outcome[], failures: readonly Failure[], runs: number, sizeBytes: number, facts: Readonly<Record<string, number>>, cost: Awaited<ReturnType<typeof measureCost>> | null): Awaited<ReturnType<Benchmark>> {
  const countsOf = (some: readonly Outcome[]): Record<string, number> => {
    const attacks = some.filter(({ kind }) => kind === 'attack');
    const honest = some.filter(({ kind }) => kind === 'honest');
    const hits = attacks.filter(({ alarm }) => alarm).length;
    return {
      attacks: attacks.length, hits, misses: attacks.length - hits, honest: honest.length, false_alarms: honest.filter(({ alarm }) => alarm).length,
      named_point_clean: attacks.filter(({ before_is_clean: isClean }) => isClean === true).length, named_point_not_clean: attacks.filter(({ before_is_clean: isClean }) => isClean === false).length,
    };
  };
  const all = countsOf(outcomes);
  const seconds = outcomes.flatMap(({ kind, seconds_to_alarm: taken }) => (kind !== 'attack' || taken === null ? [] : [taken]));
  const spread = seconds.length === 0 ? null : spreadOf(seconds, 1);
  const wrong = outcomes.filter(({ kind, alarm }) => (kind === 'attack' && !alarm) || (kind === 'honest' && alarm));
  return {
    name: 'ransomware', unit: 's', ours: spread?.median ?? 0, peer: 0, ratio: 0, runs,
    extras: {
      ...all, seconds_to_alarm: spread, tuning: countsOf(outcomes.filter(({ tuning }) => tuning)), held_out: countsOf(outcomes.filter(({ tuning, seed }) => !tuning || seed > 1)),
      cost, rpo_ms: rpoMs, image_bytes: sizeBytes, material: facts, outcomes, failures,
    },
    rows: spread === null ? [] : [{ what: 'first encrypted file to alarm', unit: 's', spread }],
    notes: [
      `${all['hits']} of ${all['attacks']} attacks noticed, ${all['false_alarms']} false alarms in ${all['honest']} honest loads; a point every ${rpoMs / 1000} s; no peer has this figure`,
      ...wrong.map(({ kind, load, seed }) => `${kind === 'attack' ? 'missed' : 'false alarm'}: ${load}, seed ${seed}`),
      ...outcomes.filter(({ kind }) => kind === 'blind').map(({ load, seed, alarm }) => `${load}, seed ${seed}: ${alarm ? 'an alarm, as by content it is one' : 'no alarm'}`),
      ...failures.map(({ load, seed, why }) => `not measured: ${load}, seed ${seed}: ${why.split('\n')[0]!}`),
      ...(cost === null ? [] : [`looking costs the target ${cost.cpu_seconds_per_gib.added} CPU seconds a GiB beside ${cost.cpu_seconds_per_gib.without} of applying`]),
    ],
  };
}
