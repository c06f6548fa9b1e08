/** Finds and runs the programs of others, bounded in time and output. */
import { execFile } from 'node:child_process';
import { findProgram } from '../../host/node/programs.ts';

const runMsMax = 10_000;

/** The machine as checks see it; tests give another. */
export interface HostFacts {
  /** PATH */
  readonly path: string;
  /** Node's name of the architecture. */
  readonly arch: string;
  /** `v20.20.2` */
  readonly nodeVersion: string;
}

export const thisHost: HostFacts = { path: process.env['PATH'] ?? '', arch: process.arch, nodeVersion: process.version };

const qemuArchs: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64', ppc64: 'ppc64', s390x: 's390x' };
const qemuPackages: Readonly<Record<string, string>> = { x64: 'qemu-system-x86', arm64: 'qemu-system-arm' };

export function qemuName(host: HostFacts): string {
  return `qemu-system-${qemuArchs[host.arch] ?? host.arch}`;
}

/** Debian's package of {@link qemuName}. */
export function qemuPackage(host: HostFacts): string {
  return qemuPackages[host.arch] ?? 'qemu-system-misc';
}

export function findBinary(host: HostFacts, name: string): Promise<string | null> {
  return findProgram(host.path, name);
}

export type Ran = { readonly isDone: true; readonly output: string } | { readonly isDone: false; readonly why: string };

export function runBinary(path: string, args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(path, [...args], { timeout: runMsMax, killSignal: 'SIGKILL', maxBuffer: 4 * 1024 * 1024 }, (error, stdout, stderr) => {
      resolve(error === null ? { isDone: true, output: stdout } : { isDone: false, why: stderr.trim().split('\n')[0] || error.message });
    });
  });
}
