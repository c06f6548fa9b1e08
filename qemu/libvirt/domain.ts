/** Looks a libvirt domain up, as it runs and as it will be started next. Changes nothing. */
import { isFault, Fault } from '../../journal/fault.ts';
import { isOwnMonitor, monitorPaths } from '../own-monitor-plan.ts';
import { attribute, child, parseDomain, qemuArguments, textOf } from './domain-xml.ts';
import { virsh } from './virsh.ts';

export interface LibvirtDomainFacts {
  readonly name: string;
  readonly uuid: string;
  /** Null: it does not run. */
  readonly domainId: number | null;
  /** Its monitor for us, with which its QEMU was started; null: it has none. */
  readonly ownMonitor: string | null;
  /** As it runs, or where it does not as it is defined. With secrets (`--security-info`) left out. */
  readonly xml: string;
}

/** Faults: LIBVIRT_UNREACHABLE; QMP_UNREACHABLE (facts: error ENOENT) when there is no such domain. */
export async function lookUpDomain(uri: string, domain: string, signal?: AbortSignal): Promise<LibvirtDomainFacts> {
  const how = signal === undefined ? {} : { signal };
  try {
    return domainFacts(await virsh(uri, ['dumpxml', domain], how));
  } catch (error) {
    if (!isFault(error, 'LIBVIRT_REFUSED')) throw error;
    // Gone, or refused for another reason: only libvirt's list tells.
    for (const by of ['--name', '--uuid']) if ((await virsh(uri, ['list', '--all', by], how)).split('\n').some((line) => line.trim() === domain)) throw error;
    throw new Fault('QMP_UNREACHABLE', `libvirt at ${uri} has no domain ${domain}`, { domain, uri, error: 'ENOENT' }, error);
  }
}

export function domainFacts(xml: string): LibvirtDomainFacts {
  const parsed = parseDomain(xml);
  const id = attribute(parsed.domain, 'id');
  return {
    name: textOf(child(parsed.domain, 'name')) ?? '',
    uuid: (textOf(child(parsed.domain, 'uuid')) ?? '').toLowerCase(),
    domainId: id === undefined ? null : Number(id),
    ownMonitor: monitorPaths(qemuArguments(parsed)).find(isOwnMonitor) ?? null,
    xml,
  };
}
