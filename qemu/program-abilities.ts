/**
 * What a QEMU program of this host can start: machines, CPU models under an accelerator, devices, networks; asked of itself. It
 * judges nothing. An answer is remembered for as long as the program's file is the same. Modules of QEMU are files of their own,
 * which come and go beside it: so whoever asks says how old an answer may be.
 */
import { stat } from 'node:fs/promises';
import { askEmptyQemu } from './empty-qemu.ts';
import { askOrNull } from './guest-disks.ts';
import type { QmpConnection } from './qmp.ts';

export interface ProgramAbilities {
  /** `7.2.22` */
  readonly version: string;
  /** By name, aliases as well (`q35`). */
  readonly machines: ReadonlyMap<string, { readonly cpusMax: number; readonly isDeprecated: boolean }>;
  /** `missing`: features that this host or the accelerator lacks for it; QEMU then starts it without them. */
  readonly cpuModels: ReadonlyMap<string, { readonly missing: readonly string[]; readonly isDeprecated: boolean }>;
  /** Each feature that QEMU knows, and whether this host and the accelerator have it; null when QEMU does not say. */
  readonly cpuFeatures: ReadonlyMap<string, boolean> | null;
  readonly devices: ReadonlySet<string>;
  /** Kinds of network back ends (`user`, `bridge`); null when QEMU does not say. */
  readonly networks: ReadonlySet<string> | null;
}

interface Remembered { readonly stamp: string; readonly atMs: number; readonly answer: Promise<ProgramAbilities> }
const remembered = new Map<string, Remembered>();

export interface AbilitiesOptions {
  /** Of an answer that is remembered, ms; any age when absent. */
  readonly ageMsMax?: number | undefined;
  /** Until then no QEMU is started: one that starts takes a processor for a tenth of a second. */
  readonly askAfter?: Promise<void> | undefined;
}

/** Faults: QMP_*; and what the file system throws for a program that is not there. */
export async function programAbilities(program: string, accel: 'kvm' | 'tcg', { ageMsMax = Infinity, askAfter }: AbilitiesOptions = {}): Promise<ProgramAbilities> {
  const { dev, ino, size, mtimeMs } = await stat(program);
  const stamp = `${dev} ${ino} ${size} ${mtimeMs}`;
  const key = `${accel} ${program}`;
  const known = remembered.get(key);
  if (known?.stamp === stamp && performance.now() - known.atMs < ageMsMax) return known.answer;
  await askAfter;
  const answer = askEmptyQemu(program, accel, askAbilities);
  const entry = { stamp, atMs: performance.now(), answer };
  remembered.set(key, entry);
  try {
    return await answer;
  } catch (error) {
    // A failure may pass; it is asked anew.
    if (remembered.get(key) === entry) remembered.delete(key);
    throw error;
  }
}

interface Machine { readonly name: string; readonly alias?: string; readonly 'cpu-max': number; readonly deprecated?: boolean }
interface CpuModel { readonly name: string; readonly 'unavailable-features'?: readonly string[]; readonly deprecated?: boolean }
interface SchemaEntry { readonly name: string; readonly 'arg-type'?: string; readonly tag?: string; readonly members?: readonly { readonly name: string; readonly type: string }[]; readonly values?: readonly string[] }

async function askAbilities(qmp: QmpConnection): Promise<ProgramAbilities> {
  const [machines, models, most, devices, schema] = await Promise.all([
    qmp.execute<Machine[]>('query-machines'),
    askOrNull<CpuModel[]>(qmp, 'query-cpu-definitions'),
    // The model that has all that host and accelerator can give.
    askOrNull<{ model: { props?: Readonly<Record<string, unknown>> } }>(qmp, 'query-cpu-model-expansion', { type: 'full', model: { name: 'max' } }),
    qmp.execute<{ name: string }[]>('qom-list-types', { implements: 'device', abstract: false }),
    qmp.execute<SchemaEntry[]>('query-qmp-schema'),
  ]);
  const { major, minor, micro } = qmp.version;
  return {
    version: `${major}.${minor}.${micro}`,
    machines: new Map(machines.flatMap(({ name, alias, 'cpu-max': cpusMax, deprecated }) => [name, ...(alias === undefined ? [] : [alias])].map((called) => [called, { cpusMax, isDeprecated: deprecated === true }] as const))),
    cpuModels: new Map((models ?? []).map((model) => [model.name, { missing: model['unavailable-features'] ?? [], isDeprecated: model.deprecated === true }])),
    cpuFeatures: featuresOf(most?.model.props),
    devices: new Set(devices.map(({ name }) => name)),
    networks: networkKinds(schema),
  };
}

function featuresOf(props: Readonly<Record<string, unknown>> | undefined): ReadonlyMap<string, boolean> | null {
  if (props === undefined) return null;
  return new Map(Object.entries(props).flatMap(([name, value]) => (typeof value === 'boolean' ? [[name, value] as const] : [])));
}

/** Types have no names in the schema; the kinds are the enum that is the type of netdev_add's "type". */
function networkKinds(schema: readonly SchemaEntry[]): ReadonlySet<string> | null {
  const entry = (name: string | undefined): SchemaEntry | undefined => schema.find((one) => one.name === name);
  const kinds = entry(entry(entry('netdev_add')?.['arg-type'])?.members?.find(({ name }) => name === 'type')?.type)?.values;
  return kinds === undefined ? null : new Set(kinds);
}
