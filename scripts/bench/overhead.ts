/**
 * What protection costs the guest's writes: random writes of 4 KiB, 16 under way, on the stand-in's disk, unprotected and
 * protected at an RPO of 5 s, in turns. `hot` over 64 MiB (the ratio), `paced` at 2,000 a second over the whole disk (latency),
 * `full` as fast as it goes over the whole disk, where every cycle finds all of it dirty.
 */
import { type BenchContext, type Benchmark } from './benchmark.ts';
import type { SourceClient } from '../../console/control-client.ts';
import type { GuestReport } from '../../daemon/report.ts';
import { startSource, startTarget, untilProtected, type Daemon } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { runLoad, type LoadFigures } from './fio.ts';
import { ratioOf, rounded, spreadOf, type ResultRow } from './figures.ts';
import { meterCores } from './process-usage.ts';
import { diskNode, startStandIn, type StandIn } from './stand-in.ts';
import { until } from './site.ts';

const rpoMs = 5_000;
const hotBytes = 64 * 1024 * 1024;
const pacedIops = 2_000;
const kinds = ['hot', 'paced', 'full'] as const;
type Kind = (typeof kinds)[number];
type Cores = Partial<Record<'standIn' | 'source' | 'target', number>>;
type Taken = LoadFigures & { readonly cores: Cores };
/** What protection did during one load, by its JSON names; `in_path_ms`: how long the last cycle's job was in the guest's path. */
interface Cover { readonly points: number; readonly dropped: number; readonly in_path_ms: number; readonly rpo_ms_max: number; readonly last_fault: string | null }

export const overhead: Benchmark = async (context) => {
  const { site, say, arguments: { sizeBytes, runs } } = context;
  const imagePath = site.path('disk.raw');
  // Without holes: the file system's first allocation of a block is not what is measured.
  await makeDiskImage(imagePath, sizeBytes, true);
  await readIntoCache(imagePath);
  const standIn = await startStandIn(site, imagePath);
  const target = await startTarget(site);
  const source = await startSource(site, (await target.client.invite()).token);
  const pids = { standIn: standIn.running.pid };
  const allPids = { ...pids, source: source.running.pid, target: target.running.pid };
  const taken: Record<'bare' | 'covered', Record<Kind, Taken[]>> = { bare: { hot: [], paced: [], full: [] }, covered: { hot: [], paced: [], full: [] } };
  const covers: Record<Kind, Cover[]> = { hot: [], paced: [], full: [] };
  for (let round = 1; round <= runs; round++) {
    for (const kind of kinds) {
      await readIntoCache(imagePath);
      const bare = await load(context, standIn, kind, pids);
      taken.bare[kind].push(bare);
      const name = `guest${round}${kind}`;
      const { groupId } = await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [diskNode] });
      await untilProtected(source, name);
      const isApplied = () => until('what was acknowledged is applied', async () => {
        const group = (await target.client.report()).groups.find((one) => one.groupId === groupId);
        return group?.newest != null && group.newest.point === group.applied?.point;
      }, { running: target.running, limitMs: 300_000, everyMs: 50 });
      await isApplied();
      const before = (await reportOf(source, name)).capture;
      const covered = await load(context, standIn, kind, allPids);
      taken.covered[kind].push(covered);
      const { capture, rpo, lastFault } = await reportOf(source, name);
      const cover = {
        points: (capture?.cycles ?? 0) - (before?.cycles ?? 0), dropped: (capture?.droppedCycles ?? 0) - (before?.droppedCycles ?? 0),
        in_path_ms: Math.round(capture?.inPathMs ?? 0), rpo_ms_max: Math.round(rpo.maxMs ?? 0), last_fault: lastFault?.code ?? null,
      };
      covers[kind].push(cover);
      say(`round ${round}: ${kind}: unprotected ${told(bare)}; protected ${told(covered)}; meanwhile ${JSON.stringify(cover)}`);
      await source.client.unprotect(name, true);
    }
  }

  const stated = Object.fromEntries(kinds.map((kind) => [kind, statedOf(taken.bare[kind], taken.covered[kind])])) as Record<Kind, ReturnType<typeof statedOf>>;
  const rows = kinds.flatMap((kind): ResultRow[] => [
    { what: `${kind}, unprotected`, unit: 'IOPS', spread: stated[kind].iops_unprotected },
    { what: `${kind}, protected`, unit: 'IOPS', spread: stated[kind].iops_protected, ratio: stated[kind].iops_ratio },
    { what: `${kind}, unprotected, p99`, unit: 'us', spread: stated[kind].p99_us_unprotected },
    { what: `${kind}, protected, p99`, unit: 'us', spread: stated[kind].p99_us_protected, ratio: stated[kind].p99_ratio },
  ]);
  const { hot } = stated;
  const cores = (kind: Kind): string => Object.entries(stated[kind].cores_protected).map(([who, used]) => `${who} ${used}`).join(', ');
  return {
    name: 'overhead', unit: 'IOPS', ours: hot.iops_protected.median, peer: hot.iops_unprotected.median, ratio: hot.iops_ratio, runs,
    extras: { image_bytes: sizeBytes, rpo_ms: rpoMs, load_seconds: context.arguments.loadSeconds, ...stated, cycles: covers },
    rows,
    notes: [
      'ours: hot IOPS protected; peer: the same unprotected',
      'ratios beside p99 are protected to unprotected: below 1.5 is the bar for paced, less is better',
      ...kinds.map((kind) => `cores used, ${kind}, protected: ${cores(kind)}; unprotected: standIn ${stated[kind].cores_unprotected.standIn}`),
    ],
  };
};

async function reportOf(source: Daemon<SourceClient>, name: string): Promise<GuestReport> {
  const guest = (await source.client.report()).guests.find((one) => one.name === name);
  if (guest === undefined) throw new Error(`the source does not know ${name}`);
  return guest;
}

async function load({ site, arguments: { sizeBytes, loadSeconds } }: BenchContext, standIn: StandIn, kind: Kind, pids: Cores & { standIn: number }): Promise<Taken> {
  const cores = meterCores(pids as Record<'standIn' | 'source' | 'target', number>);
  const figures = await runLoad(site, {
    uri: standIn.uri, seconds: loadSeconds, spanBytes: kind === 'hot' ? Math.min(hotBytes, sizeBytes) : sizeBytes, ...(kind === 'paced' ? { iopsMax: pacedIops } : {}),
  });
  return { ...figures, cores: cores() };
}

function told({ iops, p99Us }: LoadFigures): string {
  return `${Math.round(iops)} IOPS, p99 ${Math.round(p99Us)} us`;
}

/** By their JSON names. */
function statedOf(bare: readonly Taken[], covered: readonly Taken[]) {
  const of = (some: readonly Taken[], what: (one: Taken) => number, digits = 0) => spreadOf(some.map(what), digits);
  const iops = { bare: of(bare, ({ iops }) => iops), covered: of(covered, ({ iops }) => iops) };
  const p99 = { bare: of(bare, ({ p99Us }) => p99Us), covered: of(covered, ({ p99Us }) => p99Us) };
  const coresOf = (some: readonly Taken[]): Cores => Object.fromEntries((Object.keys(some[0]!.cores) as (keyof Cores)[]).map((who) => [who, of(some, ({ cores }) => cores[who] ?? 0, 2).median]));
  return {
    iops_unprotected: iops.bare, iops_protected: iops.covered, iops_ratio: ratioOf(iops.covered, iops.bare, false),
    p50_us_unprotected: of(bare, ({ p50Us }) => p50Us).median, p50_us_protected: of(covered, ({ p50Us }) => p50Us).median,
    p99_us_unprotected: p99.bare, p99_us_protected: p99.covered, p99_ratio: rounded(p99.covered.median / p99.bare.median, 3),
    max_us_unprotected: of(bare, ({ maxUs }) => maxUs).max, max_us_protected: of(covered, ({ maxUs }) => maxUs).max,
    cores_unprotected: coresOf(bare), cores_protected: coresOf(covered),
  };
}
