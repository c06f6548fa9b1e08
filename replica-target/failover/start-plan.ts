/**
 * Whether a group's guest could start on this host as it is now: facts in, findings out, each with what a person can do. It
 * looks at nothing itself (start-check.ts does), and it stops nobody: an unplanned failover goes on whatever is refused here.
 * Invariant: `refused` is said only of what keeps the guest from starting or from working; what it can live with is a warning.
 */
import { deviceRole } from '../../qemu/device-kinds.ts';
import type { GuestHardware } from '../../qemu/hardware.ts';
import type { ProgramAbilities } from '../../qemu/program-abilities.ts';
import type { RunningGuest } from '../../qemu/running-guests.ts';
import { judgeCpuModel, judgeCpus, judgeMachine, judgeMemory, judgeVersion, type MemoryFacts } from './start-machine-plan.ts';
import { fine, refused, warning, size, type StartFinding, type StartVerdict } from './start-finding.ts';

/** A file of the host's that the recorded command line names. */
export interface NamedFile {
  readonly what: 'kernel' | 'initrd' | 'firmware' | 'bios';
  readonly path: string;
  /** `changed`: there, and not what was recorded. */
  readonly state: 'there' | 'missing' | 'unreadable' | 'changed';
}

export interface BridgeState { readonly name: string; readonly state: 'up' | 'down' | 'missing' | 'no-bridge' }

export interface StartFacts {
  readonly hasPoint: boolean;
  readonly hardware: GuestHardware;
  readonly accel: 'kvm' | 'tcg';
  readonly program: {
    readonly name: string;
    readonly path: string | null;
    /** Null: it could not be asked, because of `why`. */
    readonly abilities: ProgramAbilities | null;
    readonly why: string | null;
    /** Why it does not run under the accelerator, though it does without; null: it does. */
    readonly accelWhy: string | null;
    readonly hasQemuImg: boolean;
  };
  readonly memory: MemoryFacts;
  readonly hostCpus: number;
  readonly files: readonly NamedFile[];
  /** Of the group, as it is stored. `isThere`: its image can be read. */
  readonly disks: readonly { readonly name: string; readonly isThere: boolean; readonly isAtApplied: boolean }[];
  readonly overlays: {
    readonly folder: string;
    /** Why this process may not write there; null: it may. */
    readonly why: string | null;
    readonly freeBytes: number;
    readonly keepFreeBytes: number;
    /** What the guest's images hold now, and a copy of them would take. */
    readonly replicaBytes: number;
  };
  /** Where NICs lead: `none`, `user`, `isolated`, `bridge:NAME`. */
  readonly network: string;
  /** Of the bridges to which its NICs are to lead. */
  readonly bridges: readonly BridgeState[];
  /** QEMU processes of this host, without those that this target started for the group. */
  readonly running: readonly RunningGuest[];
  /** The longest path of a socket that QEMU would make, bytes. */
  readonly socketPathBytes: number;
}

/** Bytes of a unix socket's path, without the terminating zero (unix(7), sun_path). */
const socketPathBytesMax = 107;
/** Below this hardly a guest boots: what it writes at its start, and the images' own tables. */
const overlayBytesMin = 64 * 1024 ** 2;

export function judgeStart(facts: StartFacts): StartFinding[] {
  const { abilities } = facts.program;
  return [
    ...judgePoint(facts),
    ...judgeProgram(facts),
    ...(abilities === null ? [] : [
      judgeVersion(facts.hardware, abilities), judgeMachine(facts.hardware, abilities),
      judgeCpuModel(facts.hardware, abilities, facts.accel), judgeDevices(facts.hardware, abilities),
    ]),
    judgeCpus(facts.hardware, abilities, facts.hostCpus),
    judgeMemory(facts.hardware, facts.memory),
    ...judgeFiles(facts),
    judgeDisks(facts),
    judgeSpace(facts),
    judgeNetwork(facts),
    judgeIdentity(facts),
    judgeSockets(facts),
  ];
}

export function worstOf(findings: readonly StartFinding[]): StartVerdict {
  return (['refused', 'warning'] as const).find((verdict) => findings.some((finding) => finding.verdict === verdict)) ?? 'fine';
}

function judgePoint({ hasPoint }: StartFacts): StartFinding[] {
  return hasPoint ? [] : [refused('point', 'no point is sealed yet', 'Wait for the first sync to end.')];
}

function judgeProgram({ program, accel, hardware }: StartFacts): StartFinding[] {
  const { name, path, abilities, why, accelWhy, hasQemuImg } = program;
  const findings: StartFinding[] = [];
  if (path === null) findings.push(refused('QEMU', `${name} is not installed`, 'Install the package that has it, the version of the source’s host or a newer one.'));
  else if (abilities === null) findings.push(refused('QEMU', `${path} cannot be asked: ${why}`, `Try: ${path} -machine none -nographic`));
  else findings.push(fine('QEMU', `${path}, ${abilities.version}`));
  if (!hasQemuImg) findings.push(refused('qemu-img', 'it is not installed, and no overlay can be made', 'Install it (Debian: qemu-utils).'));
  if (accelWhy !== null) findings.push(refused('accelerator', `QEMU does not run under ${accel}: ${accelWhy}`, 'Mend KVM, or set `failover.accel: tcg`: then the guest is emulated, many times slower.'));
  else if (accel === 'tcg' && hardware.accel === 'kvm') findings.push(warning('accelerator', 'the guest ran under KVM and would be emulated here, many times slower', 'Give this host KVM (see afterimage doctor), and `failover.accel: auto`.'));
  else findings.push(fine('accelerator', accel));
  return findings;
}

function judgeDevices({ devices }: GuestHardware, abilities: ProgramAbilities): StartFinding {
  const drivers = [...new Set(devices.map(({ driver }) => driver))];
  const lacking = drivers.filter((driver) => deviceRole(driver) !== undefined && !abilities.devices.has(driver));
  const left = drivers.filter((driver) => deviceRole(driver) === undefined);
  if (lacking.length > 0) return refused('devices', `this QEMU has no ${lacking.join(', ')}`, 'Install the QEMU of the source’s host or a newer one, with its modules (Debian: qemu-system-modules-opengl and the like).');
  return left.length === 0 ? fine('devices', `${devices.length}, all known`) : warning('devices', `${left.join(', ')}: of a kind that is not started elsewhere`, 'The guest starts without them; take them out of it if it cannot.');
}

const fileNames: Readonly<Record<NamedFile['what'], string>> = { kernel: 'kernel', initrd: 'initrd', firmware: 'firmware', bios: 'BIOS' };

function judgeFiles({ files, hardware }: StartFacts): StartFinding[] {
  const findings = files.map(({ what, path, state }): StartFinding => {
    const check = fileNames[what];
    switch (state) {
      case 'there': return fine(check, path);
      case 'changed': return warning(check, `${path} is another one than at the source’s host`, 'Copy it from there, if the guest needs that very one.');
      case 'missing': case 'unreadable': {
        const found = state === 'missing' ? `${path} is not on this host` : `${path} may not be read by this user`;
        const advice = state === 'missing' ? `Copy it here from the source’s host${what === 'firmware' ? ', or install the package that has it (Debian: ovmf)' : ''}.` : 'Let this user read it.';
        // QEMU has one of its own.
        return what === 'bios' ? warning(check, `${found}; QEMU’s own is started`, advice) : refused(check, found, advice);
      }
      default: return state satisfies never;
    }
  });
  const { firmware } = hardware;
  if (firmware?.varsPath !== undefined && firmware.varsContentBase64 === undefined) findings.push(warning('firmware', 'its variables (boot entries, keys) were not recorded', 'See that the guest boots without them: afterimage test-failover.'));
  return findings;
}

function judgeDisks({ disks, hardware }: StartFacts): StartFinding {
  const gone = disks.filter(({ isThere, isAtApplied }) => isAtApplied && !isThere).map(({ name }) => name);
  if (gone.length > 0) return refused('disks', `the replica of ${gone.join(', ')} cannot be read`, 'Check the data folder: afterimage verify says what is damaged.');
  const absent = hardware.disks.map(({ name }) => name).filter((name) => !disks.some((disk) => disk.name === name && disk.isAtApplied));
  return absent.length === 0 ? fine('disks', `${disks.length}, all here`) : warning('disks', `${absent.join(', ')}: not here yet`, 'The guest would start without; a disk that was added comes with the next points.');
}

function judgeSpace({ overlays }: StartFacts): StartFinding {
  const { folder, why, freeBytes, keepFreeBytes, replicaBytes } = overlays;
  if (why !== null) return refused('space', `overlays cannot be made in ${folder}: ${why}`, 'Give this user the folder, or set another `failover.overlayFolder`.');
  const sparedBytes = Math.max(0, freeBytes - keepFreeBytes);
  const found = `${size(freeBytes)} free where overlays are made, ${size(keepFreeBytes)} of it to be kept free`;
  if (sparedBytes < overlayBytesMin) return refused('space', found, 'The guest would soon stop on a full disk: free or add space, or set another `failover.overlayFolder`.');
  if (sparedBytes < replicaBytes) return warning('space', `${found}; for disks that stand alone up to ${size(replicaBytes)} are needed`, 'It can start and run. Add space before such a failover is made final.');
  return fine('space', found);
}

function judgeNetwork({ network, bridges, hardware, program }: StartFacts): StartFinding {
  const nicCount = hardware.devices.filter(({ driver }) => deviceRole(driver) === 'nic').length;
  const nics = nicCount === 1 ? 'its NIC' : `its ${nicCount} NICs`;
  if (nicCount === 0) return fine('network', 'the guest has no NIC');
  const judged = bridges.map(judgeBridge);
  const bad = judged.find(({ verdict }) => verdict === 'refused') ?? judged.find(({ verdict }) => verdict === 'warning');
  if (bad !== undefined) return bad;
  if (bridges.length > 0) return fine('network', `${nics} at the bridge${bridges.length === 1 ? '' : 's'} ${bridges.map(({ name }) => name).join(', ')}`);
  if (network === 'none') return fine('network', `${nics} would have no cable (\`failover.network\`)`);
  const kinds = program.abilities?.networks;
  if (kinds != null && !kinds.has('user')) return refused('network', 'this QEMU was built without user-mode networking', 'Set `failover.network: none`, or install a QEMU that has it.');
  return fine('network', `${nics} ${network === 'isolated' ? 'on a network that leads nowhere' : 'behind QEMU’s own address translation'}`);
}

function judgeBridge({ name, state }: BridgeState): StartFinding {
  const make = `Make it (ip link add ${name} type bridge), or name another one.`;
  switch (state) {
    case 'missing': return refused('network', `there is no bridge ${name} on this host`, make);
    case 'no-bridge': return refused('network', `${name} is no bridge`, make);
    case 'down': return warning('network', `the bridge ${name} is down`, `ip link set ${name} up`);
    case 'up': return fine('network', `the bridge ${name}`);
    default: return state satisfies never;
  }
}

function judgeIdentity({ hardware, running, bridges }: StartFacts): StartFinding {
  const uuid = hardware.uuid?.toLowerCase();
  const macs = new Set(hardware.devices.flatMap(({ properties: { mac } }) => (typeof mac === 'string' ? [mac.toLowerCase()] : [])));
  const twins = running.filter(({ uuids }) => uuid !== undefined && uuids.includes(uuid));
  const named = (guests: readonly RunningGuest[]): string => guests.map(({ pid, name }) => `${name ?? 'a guest'} (pid ${pid})`).join(', ');
  const advice = 'If it is the same guest, end it before this one starts; else give it an identity of its own.';
  if (twins.length > 0) {
    const found = `its UUID ${uuid} is that of ${named(twins)}, which runs here`;
    return twins.some(({ isSameNetwork }) => isSameNetwork) ? refused('identity', found, advice) : warning('identity', `${found} in another network namespace`, advice);
  }
  const neighbours = running.filter((guest) => guest.macs.some((mac) => macs.has(mac)));
  if (neighbours.length > 0) {
    const clashing = [...macs].filter((mac) => neighbours.some((guest) => guest.macs.includes(mac)));
    const found = `MAC ${clashing.join(', ')} is in use by ${named(neighbours)}, which runs here`;
    // Without a way to a common network the two never meet.
    return bridges.length > 0 && neighbours.some(({ isSameNetwork }) => isSameNetwork) ? refused('identity', found, advice) : warning('identity', found, advice);
  }
  return fine('identity', `no MAC and no UUID of it in the command lines of the ${running.length} other QEMU processes that can be seen here`);
}

function judgeSockets({ socketPathBytes, overlays }: StartFacts): StartFinding {
  return socketPathBytes <= socketPathBytesMax ? fine('sockets', `paths of at most ${socketPathBytes} bytes`)
    : refused('sockets', `their paths in ${overlays.folder} would have ${socketPathBytes} bytes, and ${socketPathBytesMax} are possible`, 'Set a shorter `failover.overlayFolder`.');
}
