/** What a target's config says of failovers, tests and the witness, as the role's own options. */
import { libvirtUriDefault } from '../../qemu/guest-place.ts';
import { qmDefault } from '../../qemu/pve/qm.ts';
import type { WitnessOptions } from '../../host/node/etcd-witness.ts';
import type { ReadyChecks } from '../../replica-target/failover/readiness-plan.ts';
import { checkEveryMsDefault } from '../../replica-target/failover/start-check-watch.ts';
import type { TargetOptions } from '../../replica-target/operations.ts';
import type { SourceFile, TargetFile } from './schema.ts';

type GroupFile = NonNullable<TargetFile['groups']>[string];

/** How long a guest may take to be ready, and a hook to end, unless it is said, ms. */
const [readyMsDefault, hookMsDefault] = [300_000, 30_000];
/** A host that is lost has not renewed its lease for so long, ms. */
const leaseMsDefault = 30_000;
const prefixDefault = '/afterimage/';
/** It has to be made by an operator, who says where. */
const pveStorageDefault = 'afterimage';

export function failoverOptions({ failover, groups }: TargetFile, overlayFolder: string): TargetOptions['failover'] {
  const networks = byGroup(groups, (group) => group.networks);
  const hooks = byGroup(groups, ({ hooks: named }) => (named === undefined ? undefined : Object.fromEntries(Object.entries(named).flatMap(([step, hook]) => (hook === undefined ? [] : [[step, { command: hook.command, withinMs: hook.within ?? hookMsDefault }]])))));
  const automatic = byGroup(groups, (group) => (group.automatic === undefined ? undefined : { afterMs: group.automatic.after }));
  return {
    accel: failover?.accel ?? 'auto', network: failover?.network ?? 'none', overlayFolder, checkEveryMs: failover?.check?.every ?? checkEveryMsDefault, starts: startOptions(groups),
    ...managerOptions(failover, groups),
    ...(isEmpty(networks) ? {} : { networks }), ...(isEmpty(hooks) ? {} : { hooks }), ...(isEmpty(automatic) ? {} : { automatic }),
  };
}

/** Undefined keys: guests are started by the target itself. */
function managerOptions(failover: TargetFile['failover'], groups: TargetFile['groups']): Pick<TargetOptions['failover'], 'manager'> {
  if (failover?.by === 'libvirt') return { manager: { by: 'libvirt', uri: failover.uri ?? libvirtUriDefault } };
  if (failover?.by !== 'pve') return {};
  const { root = '/', storage = pveStorageDefault, qm = qmDefault } = failover.pve ?? {};
  const vmids = byGroup(groups, ({ guests }) => Object.fromEntries(Object.entries(guests ?? {}).flatMap(([guest, { vmid }]) => (vmid === undefined ? [] : [[guest, vmid]]))));
  return { manager: { by: 'pve', root, storage, command: qm, vmids } };
}

export function rehearseOptions({ groups }: TargetFile): Readonly<Record<string, number>> {
  return byGroup(groups, ({ rehearse }) => rehearse?.every);
}

/** Undefined: there is none. */
export function witnessOptions(witness: NonNullable<(SourceFile | TargetFile)['witness']>): WitnessOptions {
  const { endpoints, prefix, ca, cert, key, user, passwordFile } = witness.etcd;
  return {
    ttlMs: witness.ttl ?? leaseMsDefault,
    etcd: {
      endpoints, prefix: prefix ?? prefixDefault, ...(ca === undefined ? {} : { caPath: ca }), ...(cert === undefined ? {} : { certPath: cert }), ...(key === undefined ? {} : { keyPath: key }),
      ...(user === undefined ? {} : { user }), ...(passwordFile === undefined ? {} : { passwordPath: passwordFile }),
    },
  };
}

function startOptions(groups: TargetFile['groups']): NonNullable<TargetOptions['failover']['starts']> {
  const readyOf = ({ agent, serial, command, within }: NonNullable<NonNullable<GroupFile['guests']>[string]['ready']>): ReadyChecks => ({
    ...(agent === undefined ? {} : { agent }), ...(serial === undefined ? {} : { serial }), ...(command === undefined ? {} : { command }), withinMs: within ?? readyMsDefault,
  });
  return byGroup(groups, ({ guests }) => (guests === undefined ? undefined : Object.fromEntries(Object.entries(guests).map(([guest, { order, delay, ready }]) => [guest, {
    order: order ?? 0, delayMs: delay ?? 0, ready: ready === undefined ? null : readyOf(ready),
  }]))));
}

/** Without those of which `of` says nothing. */
function byGroup<T>(groups: TargetFile['groups'], of: (group: GroupFile) => T | undefined): Record<string, T> {
  return Object.fromEntries(Object.entries(groups ?? {}).flatMap(([name, group]) => { const one = of(group); return one === undefined ? [] : [[name, one]]; }));
}

function isEmpty(values: object): boolean {
  return Object.keys(values).length === 0;
}
