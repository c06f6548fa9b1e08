/**
 * Asks a libvirtd through `virsh`, one command to a process. What libvirt says is passed on as it is; what it means is the caller's matter. `virsh` is the seam to libvirt that is
 * kept compatible for scripts, and needs neither a binding nor a build.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '../../journal/fault.ts';

/** A libvirtd that starts answers after seconds; one that hangs must not hold whoever asks. */
const answerMsMax = 20_000;
/** Domain XML of large guests is some 100 KiB. */
const answerBytesMax = 16 * 1024 * 1024;

/** libvirt speaks the language of whoever asks. */
export function virshEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C', TERM: 'dumb' };
}

export interface VirshOptions {
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

/** Standard output. `args`: command first. Faults: LIBVIRT_UNREACHABLE (no virsh, no libvirtd), LIBVIRT_REFUSED (facts: said). */
export function virsh(uri: string, args: readonly string[], { limitMs = answerMsMax, signal }: VirshOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { env: virshEnvironment(), timeout: limitMs, maxBuffer: answerBytesMax, killSignal: 'SIGKILL' as const, ...(signal === undefined ? {} : { signal }) };
    const child = execFile('virsh', ['-q', '-c', uri, ...args], options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      if (signal?.aborted === true) return reject(signal.reason as Error);
      reject(failed(uri, args[0]!, error, saidBy(stderr), limitMs));
    });
    child.stdin?.end();
  });
}

/** Defines a domain anew or for the first time. Faults: as {@link virsh}. */
export async function defineDomain(uri: string, xml: string): Promise<void> {
  await withFile(xml, (path) => virsh(uri, ['define', path]));
}

/** Starts a domain that is defined nowhere, its processors held. Faults: as {@link virsh}. */
export async function createDomain(uri: string, xml: string, limitMs: number): Promise<void> {
  await withFile(xml, (path) => virsh(uri, ['create', '--paused', path], { limitMs }));
}

/** libvirt reads a definition from a file. */
async function withFile(xml: string, act: (path: string) => Promise<unknown>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'afterimage-'));
  try {
    const path = join(folder, 'domain.xml');
    // It may hold passwords of consoles.
    await writeFile(path, xml, { mode: 0o600 });
    await act(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function failed(uri: string, command: string, error: Error & { code?: unknown; killed?: boolean }, said: string, limitMs: number): Fault {
  const facts = { uri, command, said };
  if (error.code === 'ENOENT') return new Fault('LIBVIRT_UNREACHABLE', 'there is no virsh on this host (Debian: libvirt-clients)', facts, error);
  if (error.killed === true) return new Fault('LIBVIRT_UNREACHABLE', `libvirt at ${uri} did not answer to ${command} within ${limitMs} ms`, facts, error);
  // The one sentence that tells a libvirtd that cannot be asked from one that says no (virsh, `virshInit`).
  if (said.includes('failed to connect to the hypervisor')) return new Fault('LIBVIRT_UNREACHABLE', `libvirt at ${uri} cannot be reached: ${said}`, facts, error);
  return new Fault('LIBVIRT_REFUSED', `libvirt refused ${command}: ${said}`, facts, error);
}

/** The sentences of an error output, in one line. */
export function saidBy(stderr: string): string {
  return stderr.split('\n').map((line) => line.replace(/^error: /, '').trim()).filter((line) => line !== '').join('; ').slice(0, 500) || 'it said nothing';
}
