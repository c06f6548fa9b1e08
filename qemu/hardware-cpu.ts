/**
 * Records a guest's CPUs: model, topology, and the features that differ from what the model has by itself. The guest's
 * own QEMU is asked for both; nothing is known here about any processor.
 */
import { askOrNull } from './guest-disks.ts';
import type { GuestHardware } from './hardware.ts';
import type { QmpConnection } from './qmp.ts';

export interface RecordedCpu {
  readonly cpu: GuestHardware['cpu'];
  readonly smp: GuestHardware['smp'];
  readonly notes: string[];
}

interface CpuFast { readonly 'qom-path': string; readonly props?: { readonly 'node-id'?: number } }
interface Topology { readonly cpus?: number; readonly maxcpus?: number; readonly sockets?: number; readonly dies?: number; readonly clusters?: number; readonly cores?: number; readonly threads?: number }
type Features = Readonly<Record<string, boolean | number>>;

export async function recordCpu(qmp: QmpConnection): Promise<RecordedCpu> {
  const notes: string[] = [];
  const [cpus, topology] = await Promise.all([
    qmp.execute<CpuFast[]>('query-cpus-fast'),
    askOrNull<Topology>(qmp, 'qom-get', { path: '/machine', property: 'smp' }),
  ]);
  if (new Set(cpus.map(({ props }) => props?.['node-id'] ?? 0)).size > 1) notes.push('The CPUs belong to several NUMA nodes; they are started in one.');
  const first = cpus[0];
  const type = first === undefined ? null : await askOrNull<string>(qmp, 'qom-get', { path: first['qom-path'], property: 'type' });
  // "Skylake-Client-v1-x86_64-cpu", "cortex-a57-arm-cpu"
  const model = type === null ? undefined : /^(.+)-[a-z0-9_]+-cpu$/.exec(type)?.[1];
  if (first === undefined || model === undefined) {
    notes.push('The CPU model cannot be seen; the machine’s default is started.');
    return { cpu: undefined, smp: smp(topology, cpus.length), notes };
  }
  if (model === 'host') notes.push('The CPU is the host’s own (model “host”): at the target it is the target’s.');
  const isFixed = model !== 'host' && model !== 'max';
  const features = isFixed ? await recordFeatures(qmp, model, first['qom-path']) : {};
  if (features === null) notes.push(`What was added to or taken from the CPU model ${model} cannot be seen.`);
  return { cpu: { model, features: features ?? {} }, smp: smp(topology, cpus.length), notes };
}

/** CPUs may have been plugged since the start: as many as there are now. */
function smp(topology: Topology | null, cpuCount: number): GuestHardware['smp'] {
  if (topology === null) return undefined;
  const { maxcpus = cpuCount, sockets = 1, dies = 1, clusters = 1, cores = 1, threads = 1 } = topology;
  return { cpus: Math.max(1, cpuCount), maxCpus: maxcpus, sockets, dies, clusters, cores, threads };
}

/**
 * Features whose state differs from the model's own; null when QEMU cannot say. Asking is not straightforward, for what was
 * given with `-cpu` colours the answers. `MODEL,x=on` changes the defaults of the type MODEL: so the model is asked for under
 * its other name (an alias resolves to a versioned model; of a versioned model the unversioned is taken, a little further
 * away: then more features are named than needed). `MODEL,+x` adds x to every model: it is what the featureless model
 * "base" has. `MODEL,-x` takes x from every model, and cannot be seen: the guest gets x back.
 */
async function recordFeatures(qmp: QmpConnection, model: string, cpuPath: string): Promise<Features | null> {
  const known = await askOrNull<{ name: string; 'alias-of'?: string }[]>(qmp, 'query-cpu-definitions');
  const pristine = known?.find(({ name }) => name === model)?.['alias-of'] ?? known?.find(({ name }) => name === model.replace(/-v\d+$/, '') && name !== model)?.name;
  if (pristine === undefined) return null;
  const expand = async (type: 'static' | 'full', name: string): Promise<Readonly<Record<string, unknown>> | null> =>
    (await askOrNull<{ model: { props?: Readonly<Record<string, unknown>> } }>(qmp, 'query-cpu-model-expansion', { type, model: { name } }))?.model.props ?? null;
  const [canonical, full, added] = await Promise.all([expand('static', pristine), expand('full', pristine), expand('static', 'base')]);
  if (canonical === null || full === null) return null;
  const features: Record<string, boolean | number> = {};
  // The static expansion names each CPUID feature once; Hyper-V's and KVM's own switches are in the full one alone.
  const names = Object.keys(full).filter((name) => name in canonical || name.startsWith('hv-') || name === 'kvm');
  const actual = await Promise.all(names.map((name) => askOrNull<unknown>(qmp, 'qom-get', { path: cpuPath, property: name })));
  names.forEach((name, i) => {
    const now = actual[i];
    const isSwitch = typeof now === 'boolean' || name === 'hv-spinlocks';
    if (isSwitch && (typeof now === 'boolean' || typeof now === 'number') && (now !== full[name] || (now === true && added?.[name] === true))) features[name] = now;
  });
  return features;
}
