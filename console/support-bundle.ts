/**
 * What `afterimage support-bundle` collects of this host, as files in a folder: configs, reports, doctor, versions, logs. It asks the daemons that run
 * and does without those that do not. Nothing is written that did not go through redacted.ts, and the files that hold secrets are read for one purpose:
 * to know what must not be in it.
 */
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { arch, release, totalmem, version as kernelVersion } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Config } from './config/config.ts';
import { SourceClient, TargetClient } from './control-client.ts';
import { findBinary, qemuName, runBinary, thisHost } from './doctor/binaries.ts';
import type { DoctorReport } from './doctor/check.ts';
import { redactText, redactValue, secretsIn } from './render/redacted.ts';

/** A file of secrets is small; larger ones are data. */
const secretFileBytesMax = 64 * 1024;
/** Of each role, the newest. */
const logLines = 5000;
const textFile = /\.(json|pem|key|psk|crt|txt|ya?ml)$|^[^.]+$/;

export interface BundleQuestion {
  readonly version: string;
  readonly configs: readonly Config[];
  readonly doctor: DoctorReport;
  readonly atMs: number;
}

/** Writes into `folder`, which is made. Resolves to the names of the files. */
export async function collectBundle(folder: string, { version, configs, doctor, atMs }: BundleQuestion): Promise<string[]> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const secrets = new Set<string>();
  for (const config of configs) for (const secret of await knownSecrets(config)) secrets.add(secret);
  const names: string[] = [];
  const put = async (name: string, text: string): Promise<void> => {
    await writeFile(join(folder, name), redactText(text, secrets), { mode: 0o600 });
    names.push(name);
  };
  const putJson = (name: string, value: unknown): Promise<void> => put(name, `${JSON.stringify(redactValue(value, secrets), null, 2)}\n`);

  await putJson('versions.json', await versions(version, atMs));
  await putJson('doctor.json', doctor);
  for (const config of configs) {
    const { role } = config;
    await putJson(`config-${role}.json`, { path: config.path, file: await attempted(async () => parse(await readFile(config.path, 'utf8')) as unknown) });
    const report = await attempted<unknown>(() => (role === 'source' ? new SourceClient(config.controlPath).report() : new TargetClient(config.controlPath).report()));
    await putJson(`report-${role}.json`, report);
    await putJson(`faults-${role}.json`, faultsIn(report));
    await putJson(`files-${role}.json`, await filesOf(config.options.dataFolder));
    const log = await journalOf(role);
    if (log !== null) await put(`log-${role}.txt`, log);
  }
  return names;
}

/** Texts of state and key files of a role: all that must not leave this host. */
async function knownSecrets(config: Config): Promise<string[]> {
  const found: string[] = [];
  const file = await attempted(async () => parse(await readFile(config.path, 'utf8')) as unknown);
  found.push(...secretsIn(file), ...secretsIn({ command: null, ...commandsIn(file) }));
  const paths = [...namedFiles(file), ...await smallFiles(config.options.dataFolder)];
  for (const path of paths) {
    const text = await readFile(path, 'utf8').catch(() => '');
    const value = path.endsWith('.json') ? await attempted(async () => JSON.parse(text) as unknown) : null;
    // A key file is a secret from its first line to its last; one of names and keys, in its parts.
    found.push(...(path.endsWith('.json') ? secretsIn(value) : text.split(/[\s:]+/).filter((word) => word.length >= 6)));
  }
  return found;
}

/** Files that a config names as holding a password, keys, or a certificate's key. */
function namedFiles(value: unknown, key = ''): string[] {
  if (typeof value === 'string') return /^(key|keys|passwordFile|.*secret.*|.*token.*)$/i.test(key) && value.startsWith('/') ? [value] : [];
  if (Array.isArray(value)) return value.flatMap((one) => namedFiles(one, key));
  if (typeof value === 'object' && value !== null) return Object.entries(value).flatMap(([name, one]) => namedFiles(one, name));
  return [];
}

/** Arguments of commands count as secrets wherever else they stand. */
function commandsIn(value: unknown): { token?: string[] } {
  const found: string[] = [];
  const walk = (one: unknown, key: string): void => {
    if (Array.isArray(one)) {
      if (key === 'command') found.push(...one.slice(1).filter((part): part is string => typeof part === 'string' && part.length >= 12));
      else for (const part of one) walk(part, '');
    } else if (typeof one === 'object' && one !== null) for (const [name, part] of Object.entries(one)) walk(part, name);
  };
  walk(value, '');
  return { token: found };
}

/** Of the folder itself and one level below; a group's own folder holds data, not secrets of ours. */
async function smallFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const found: string[] = [];
  for (const entry of entries) {
    if (entry.isFile() && textFile.test(entry.name)) found.push(join(folder, entry.name));
    if (entry.isDirectory() && !['groups', 'spool', 'overlays'].includes(entry.name)) {
      const below = await readdir(join(folder, entry.name), { withFileTypes: true }).catch(() => []);
      found.push(...below.filter((one) => one.isFile() && textFile.test(one.name)).map(({ name }) => join(folder, entry.name, name)));
    }
  }
  const sizes = await Promise.all(found.map((path) => stat(path).then(({ size }) => size, () => Infinity)));
  return found.filter((_path, index) => sizes[index]! <= secretFileBytesMax);
}

async function versions(version: string, atMs: number): Promise<object> {
  const programs = [qemuName(thisHost), 'qemu-img', 'qemu-storage-daemon'];
  const ran = await Promise.all(programs.map(async (name) => {
    const path = await findBinary(thisHost, name);
    const said = path === null ? null : await runBinary(path, ['--version']);
    return [name, path === null ? null : { path, said: said!.isDone ? said!.output.split('\n')[0] : said!.why }] as const;
  }));
  const system = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return {
    afterimage: version, collectedAt: new Date(atMs).toISOString(), node: process.versions, kernel: { release: release(), version: kernelVersion(), arch: arch() },
    system: /^PRETTY_NAME="?([^"\n]*)/m.exec(system)?.[1] ?? null, memoryBytes: totalmem(), programs: Object.fromEntries(ran),
  };
}

/** Every fault that a report mentions, with where it stands. */
function faultsIn(value: unknown, at = ''): { readonly at: string; readonly fault: unknown }[] {
  if (Array.isArray(value)) return value.flatMap((one, index) => faultsIn(one, `${at}[${index}]`));
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, one]) => (/fault|error/i.test(name) && typeof one === 'object' && one !== null ? [{ at: `${at}.${name}`, fault: one as unknown }] : faultsIn(one, `${at}.${name}`)));
}

/** Names, sizes and modes of the data folder's own files, which say much without a byte of content. */
async function filesOf(folder: string): Promise<unknown> {
  return attempted(async () => {
    const names = (await readdir(folder, { recursive: true })).slice(0, 20_000).sort();
    return Promise.all(names.map(async (name) => {
      const facts = await stat(join(folder, name)).catch(() => null);
      return facts === null ? { name } : { name, mode: (facts.mode & 0o7777).toString(8), uid: facts.uid, sizeBytes: facts.size, allocatedBytes: facts.blocks * 512, changedAt: facts.mtime.toISOString() };
    }));
  });
}

/** Null where there is no journal, or nothing of this role in it. */
async function journalOf(role: Config['role']): Promise<string | null> {
  const path = await findBinary(thisHost, 'journalctl');
  if (path === null) return null;
  const ran = await runBinary(path, ['--no-pager', '--output=short-iso', `--lines=${logLines}`, `--unit=afterimage-${role}.service`]);
  return ran.isDone && !ran.output.startsWith('-- No entries') ? ran.output : null;
}

/** What it resolves to, or why it did not, as the bundle shows it. */
async function attempted<T>(act: () => Promise<T>): Promise<T | { readonly error: string }> {
  try {
    return await act();
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
