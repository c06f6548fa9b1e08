/**
 * Gives a libvirt domain a monitor of ours, from its next start on: its definition gets the words that libvirt passes on to QEMU as they are. QEMU cannot be given a monitor while
 * it runs; a domain that runs is followed through libvirt until then.
 */
import { Fault } from '../../journal/fault.ts';
import type { GuestPlace } from '../guest-place.ts';
import { isOwnMonitor, monitorArguments, monitorPaths, ownMonitorName } from '../own-monitor-plan.ts';
import { addQemuArguments, child, parseDomain, qemuArguments, serialize, textOf } from './domain-xml.ts';
import { lookUpDomain } from './domain.ts';
import { defineDomain, virsh } from './virsh.ts';

/** The folder that is libvirt's QEMU user's on every distribution; it is there before the first domain starts. */
const systemFolder = '/var/lib/libvirt/qemu';
/** `sockaddr_un` of Linux, without the end. */
const socketPathBytesMax = 107;

export interface AddedMonitor { readonly path: string; readonly wasThere: boolean; /** It runs without it until it is started again. */ readonly isRunningWithout: boolean }

/** `path`: where it is to listen; may be left out with the system's libvirt. Faults: LIBVIRT_*, REQUEST_INVALID, QMP_UNREACHABLE (no such domain). */
export async function addMonitor({ uri, domain }: Extract<GuestPlace, { readonly kind: 'libvirt' }>, path?: string): Promise<AddedMonitor> {
  const now = await lookUpDomain(uri, domain);
  // With what it needs to be defined again as it was: passwords of consoles are else left out.
  const xml = parseDomain(await virsh(uri, ['dumpxml', '--inactive', '--security-info', domain]));
  const there = monitorPaths(qemuArguments(xml)).find(isOwnMonitor);
  if (there !== undefined) return { path: there, wasThere: true, isRunningWithout: now.domainId !== null && now.ownMonitor === null };
  const name = textOf(child(xml.domain, 'name')) ?? domain;
  if (path === undefined && !/^qemu(\+\w+)?:\/\/[^/]*\/system/.test(uri)) throw new Fault('REQUEST_INVALID', `say with --socket where the monitor of ${domain} is to listen, in a folder that its QEMU may write to: the name ends in .${ownMonitorName}`, { domain });
  const chosen = path ?? `${systemFolder}/${name}.${ownMonitorName}`;
  if (!isOwnMonitor(chosen)) throw new Fault('REQUEST_INVALID', `the name of the socket has to end in ${ownMonitorName}: that is how it is known for ours`, { path: chosen });
  if (Buffer.byteLength(chosen) > socketPathBytesMax) throw new Fault('REQUEST_INVALID', `a socket’s path has ${socketPathBytesMax} bytes at most, and ${chosen} has more: name a shorter one with --socket`, { path: chosen });
  addQemuArguments(xml, monitorArguments(chosen));
  await defineDomain(uri, serialize(xml));
  return { path: chosen, wasThere: false, isRunningWithout: now.domainId !== null };
}
