/**
 * The benchmark command: `npm run bench -- NAME [--json]`. Reads its words, runs one benchmark in a temporary folder, prints a
 * table or one JSON object, and makes sure that whatever happens nothing is left running and nothing on the disk.
 * Figures are stated, never judged: the exit status says only whether they could be taken.
 */
import { availableParallelism, loadavg } from 'node:os';
import { readArguments, usage, type BenchmarkName } from './arguments.ts';
import type { Benchmark } from './benchmark.ts';
import { jsonOf, rounded } from './figures.ts';
import { tableOf } from './result-table.ts';
import { Site } from './site.ts';

const chosen = readArguments(process.argv.slice(2));
if ('problem' in chosen) {
  process.stderr.write(`bench: ${chosen.problem}\n${usage}`);
  process.exit(64);
}

/** Loaded when asked for, so that one that does not load leaves the others usable. */
const benchmarks: Readonly<Record<BenchmarkName, () => Promise<Benchmark>>> = {
  seed: async () => (await import('./seed.ts')).seed,
  delta: async () => (await import('./delta.ts')).delta,
  overhead: async () => (chosen.capture === 'writelog' ? (await import('./log-overhead.ts')).logOverhead : (await import('./overhead.ts')).overhead),
  memory: async () => (await import('./memory.ts')).memory,
  points: async () => (await import('./points.ts')).points,
  'view-read': async () => (await import('./view-read.ts')).viewRead,
  apply: async () => (await import('./apply.ts')).apply,
  rpo: async () => (await import('./rpo.ts')).rpo,
  wire: async () => (await import('./wire.ts')).wire,
  failover: async () => (await import('./failover.ts')).failover,
  scale: async () => (await import('./scale.ts')).scale,
  dashboard: async () => (await import('./dashboard.ts')).dashboard,
  failback: async () => (await import('./failback.ts')).failback,
  ransomware: async () => (await import('./ransomware.ts')).ransomware,
  retention: async () => (await import('./retention.ts')).retention,
};

class Interruption extends Error {}

const site = await Site.open();
const interrupted = new Promise<never>((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => reject(new Interruption(`interrupted by ${signal}`)));
  // A bug ends the benchmark too, but not before it has cleaned up.
  for (const bug of ['uncaughtException', 'unhandledRejection'] as const) process.on(bug, reject);
});
// A signal that comes when nobody waits any more must not end the clean-up.
interrupted.catch(() => undefined);

/** So that a reader of the figures can tell whether the machine had anything else to do. */
const machine = { cores: availableParallelism(), load_average_before: rounded(loadavg()[0]!, 2) };
let status = 0;
try {
  const run = await benchmarks[chosen.name]();
  const result = await Promise.race([run({ site, arguments: chosen, say: (line) => process.stderr.write(`${line}\n`) }), interrupted]);
  const stated = { ...result, extras: { ...machine, ...result.extras }, notes: [...result.notes, `machine: ${machine.cores} cores, load average ${machine.load_average_before} before the run`] };
  process.stdout.write(chosen.isJson ? `${jsonOf(stated)}\n` : tableOf(stated));
} catch (error) {
  status = error instanceof Interruption ? 130 : 1;
  process.stderr.write(error instanceof Interruption ? `bench: ${error.message}; cleaning up\n` : `bench: ${error instanceof Error ? error.stack ?? error.message : String(error)}\n${site.lastWords()}\n`);
}
await site.clear();
// The benchmark may still wait for something that will not come now.
process.exit(status);
