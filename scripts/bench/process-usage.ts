/** What the kernel says that a process has used (proc(5)): processor time and the high-water mark of its memory. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** User and system time of all its threads so far, seconds. */
export function cpuSeconds(pid: number): number {
  const fields = statFields(pid);
  return (fields[14]! + fields[15]!) / ticksPerSecond;
}

/** Of all processes that this one has started and that have ended. */
function cpuSecondsOfEnded(): number {
  const fields = statFields(process.pid);
  return (fields[16]! + fields[17]!) / ticksPerSecond;
}

/** By the numbers of proc(5): utime 14, stime 15, cutime 16, cstime 17. */
function statFields(pid: number): number[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The command's name, in parentheses, is field 2 and may hold anything.
  return [NaN, pid, NaN, ...stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number)];
}

/** Largest resident size since the process began, MiB. */
export function peakMib(pid: number): number {
  const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (found === null) throw new Error(`process ${pid} has no VmHWM`);
  return Number(found[1]) / 1024;
}

/** Processor time, seconds, of each process, and of those that end meanwhile, until what it returns is called. */
export function meterCpu(pids: Readonly<Record<string, number>>): () => Record<string, number> {
  const now = (): [string, number][] => [...Object.entries(pids).map(([name, pid]): [string, number] => [name, cpuSeconds(pid)]), ['ended', cpuSecondsOfEnded()]];
  const before = new Map(now());
  return () => Object.fromEntries(now().map(([name, seconds]) => [name, seconds - before.get(name)!]));
}

/** Cores that each process used, on average, between the call and the call of what it returns. */
export function meterCores<K extends string>(pids: Readonly<Record<K, number>>): () => Record<K, number> {
  const names = Object.keys(pids) as K[];
  const before = names.map((name) => cpuSeconds(pids[name]));
  const fromMs = performance.now();
  return () => {
    const seconds = (performance.now() - fromMs) / 1000;
    return Object.fromEntries(names.map((name, index) => [name, (cpuSeconds(pids[name]) - before[index]!) / seconds])) as Record<K, number>;
  };
}
