/**
 * Looks whether a group's guest could start on this host, now: gathers the facts (the host's, the guest's recorded hardware, what
 * QEMU says of itself) and has start-plan.ts judge them. Changes nothing, starts no guest. What runs beside is read from command
 * lines, so a clash may be missed. Tens of milliseconds when QEMU was asked before, else some hundred.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../host/clock.ts';
import { findProgram } from '../../host/node/programs.ts';
import { isFault } from '../../journal/fault.ts';
import { readGroupHardware, type RecordedGuest } from '../../qemu/group-hardware.ts';
import { programAbilities, type AbilitiesOptions, type ProgramAbilities } from '../../qemu/program-abilities.ts';
import { runningGuests, type RunningGuest } from '../../qemu/running-guests.ts';
import type { AccelChoice, TargetOptions } from '../operations.ts';
import { errorCode } from '../store/store-fault.ts';
import type { GroupStore, GroupStoreReport } from '../store/store.ts';
import { chooseAccel, guestPlace } from './guest-launch.ts';
import { checkManager } from './managed-launch.ts';
import { bridgeOf, planNetwork, type ChosenNetwork, type NetworkName } from './network-plan.ts';
import { bridgeState, canRead, namedFiles, overlaySpace, readMemory, residentBytes } from './start-check-host.ts';
import { refused, type StartFinding, type StartReport } from './start-finding.ts';
import { judgeStart, worstOf, type StartFacts } from './start-plan.ts';

export interface StartCheckOptions {
  readonly failover: TargetOptions['failover'];
  /** On the file system of the overlay folder. */
  readonly keepFreeBytes: number;
  readonly clock: Clock;
  /** In place of the config's. */
  readonly accel?: AccelChoice | undefined;
  /** In place of the config's: `none`, `user`, `isolated`, `bridge:NAME`. */
  readonly network?: NetworkName | undefined;
  /** When QEMU is asked anew. */
  readonly qemu?: AbilitiesOptions | undefined;
  /** In place of PATH. */
  readonly searchPath?: string;
}

/** Never rejects for what is wrong with guest or host: that is what it finds. */
export async function checkStart(store: GroupStore, options: StartCheckOptions): Promise<StartReport> {
  const report = store.report();
  const accel = await chooseAccel(options.accel ?? options.failover.accel);
  const { failover } = options;
  const { network, networks } = planNetwork({ group: report.name, kind: 'failover', asked: options.network, fallback: failover.network, configured: failover.networks });
  const findings = await find(store, report, { ...options, accel, network, networks });
  return { group: report.name, atMs: options.clock.nowMs(), verdict: worstOf(findings), accel, network, findings };
}

type Asked = Omit<StartCheckOptions, 'accel' | 'network'> & { readonly accel: 'kvm' | 'tcg' } & ChosenNetwork;

async function find(store: GroupStore, report: GroupStoreReport, asked: Asked): Promise<StartFinding[]> {
  const recorded = store.hardware();
  if (Object.keys(recorded).length === 0) return [refused('hardware', 'none was recorded: no QEMU serves the disks at the source', 'Its points are for export, view and NBD; a guest for them is yours to start.')];
  const read = readGroupHardware(recorded, report.name);
  if ('flaw' in read) return [refused('hardware', `what was recorded cannot be used: ${read.flaw}`, 'Run the same release at source and target.')];
  const { guests } = read;
  const byManager = (guest: RecordedGuest): Promise<StartFinding[]> => checkManager(asked.failover.manager, report.name, guest, { ...asked, isHome: report.isReclaimed, ownFolder: ownStart(report, asked) });
  if (guests.length === 1) return [...judgeStart(await gather(report, guests[0]!, asked, 0)), ...await byManager(guests[0]!)];
  const memoryOf = ({ hardware }: RecordedGuest): number => hardware.memory.sizeBytes + (hardware.memory.pluggedBytes ?? 0);
  const findings: StartFinding[] = [];
  // Each has to find room beside all others.
  const memoryBytes = guests.reduce((sum, guest) => sum + memoryOf(guest), 0);
  for (const guest of guests) {
    for (const finding of [...judgeStart(await gather(report, guest, asked, memoryBytes - memoryOf(guest))), ...await byManager(guest)]) findings.push({ ...finding, check: `${guest.name}: ${finding.check}` });
  }
  return findings;
}

/** `othersBytes`: memory that the other guests of the group will take. */
async function gather(report: GroupStoreReport, { hardware, disks: own }: RecordedGuest, { failover, keepFreeBytes, accel, network, networks, qemu, searchPath = process.env['PATH'] ?? '' }: Asked, othersBytes: number): Promise<StartFacts> {
  const { overlayFolder } = failover;
  const bridges = new Set([network, ...Object.values(networks)].flatMap((name) => bridgeOf(name) ?? []));
  const [program, memory, files, disks, space, bridgeStates, running] = await Promise.all([
    askProgram(`qemu-system-${hardware.arch}`, searchPath, accel, qemu),
    readMemory(),
    namedFiles(hardware),
    Promise.all(report.disks.filter(({ disk }) => own === null || own.includes(disk)).map(async ({ name, replicaPath, isAtApplied }) => ({ name, isAtApplied, isThere: await canRead(replicaPath) }))),
    overlaySpace(overlayFolder),
    Promise.all([...bridges].map(bridgeState)),
    runningGuests(),
  ]);
  // What this target started of the group itself ends before its guest starts: it clashes with nothing, and its memory is free.
  const start = ownStart(report, { failover });
  const isOwn = ({ qmpPaths }: RunningGuest): boolean => qmpPaths.some((path) => path.startsWith(start));
  const freed = await Promise.all(running.filter(isOwn).map(({ pid }) => residentBytes(pid)));
  return {
    hasPoint: report.newest !== null,
    hardware, accel, program, hostCpus: availableParallelism(), files, disks, network, bridges: bridgeStates,
    memory: { ...memory, availableBytes: Math.max(0, memory.availableBytes + freed.reduce((sum, bytes) => sum + bytes, 0) - othersBytes) },
    overlays: { folder: overlayFolder, ...space, keepFreeBytes, replicaBytes: report.replicaBytes },
    running: running.filter((guest) => !isOwn(guest)),
    socketPathBytes: socketPathBytes(overlayFolder, report),
  };
}

/** With which the folders of the group's failovers and tests begin. */
function ownStart({ groupId }: GroupStoreReport, { failover: { overlayFolder } }: Pick<StartCheckOptions, 'failover'>): string {
  return join(overlayFolder, `${groupId.slice(0, 12)}-`);
}

async function askProgram(name: string, searchPath: string, accel: 'kvm' | 'tcg', asking: AbilitiesOptions | undefined): Promise<StartFacts['program']> {
  const [path, qemuImg] = await Promise.all([findProgram(searchPath, name), findProgram(searchPath, 'qemu-img')]);
  const common = { name, path, hasQemuImg: qemuImg !== null };
  if (path === null) return { ...common, abilities: null, why: null, accelWhy: null };
  const first = await askOrWhy(path, accel, asking);
  if (typeof first !== 'string') return { ...common, abilities: first, why: null, accelWhy: null };
  // Whether it is the accelerator that fails, or QEMU.
  const second = accel === 'kvm' ? await askOrWhy(path, 'tcg', asking) : first;
  return typeof second === 'string' ? { ...common, abilities: null, why: first, accelWhy: null } : { ...common, abilities: second, why: null, accelWhy: first };
}

async function askOrWhy(path: string, accel: 'kvm' | 'tcg', asking: AbilitiesOptions | undefined): Promise<ProgramAbilities | string> {
  try {
    return await programAbilities(path, accel, asking);
  } catch (error) {
    if (!isFault(error) && errorCode(error) === null) throw error;
    return (error as Error).message;
  }
}

/** A test's folder and that of the next failover differ in a word; all socket names in them are as long as this one. */
function socketPathBytes(overlayFolder: string, { groupId, term }: GroupStoreReport): number {
  return Math.max(...['test', String(term + 1)].map((end) => Buffer.byteLength(guestPlace(join(overlayFolder, `${groupId.slice(0, 12)}-${end}`, 'g00')).qmpPath)));
}
