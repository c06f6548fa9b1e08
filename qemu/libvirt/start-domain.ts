/**
 * Defines and starts a domain that was adapted for this host, its processors held, and undoes that. What was defined under its UUID before is kept beside its files until it is
 * put back: the definition of a guest that comes home is its owner's. A domain that runs is never touched.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { GuestPlace } from '../guest-place.ts';
import { attribute, child, children, parseDomain } from './domain-xml.ts';
import { lookUpDomain, type LibvirtDomainFacts } from './domain.ts';
import type { AdaptedDomain } from './adapt-domain.ts';
import { createDomain, defineDomain, virsh } from './virsh.ts';

/** `before`: its definition, null: there was none. */
const domainNote = z.object({ uri: z.string(), uuid: z.uuid(), before: z.string().nullable() });

const notePath = (folder: string): string => join(folder, 'domain.json');

/** Memory is allocated and devices are made before it is through, ms. */
const startMsMax = 120_000;
/** For libvirt to hear of the end of a QEMU, and between two looks, ms. */
const [endedMsMax, endedLookMs] = [10_000, 100];

/** Of this host's libvirt: `dac`, `apparmor`, `selinux`. Faults: LIBVIRT_*. */
export async function securityModels(uri: string): Promise<string[]> {
  const capabilities = await virsh(uri, ['capabilities']);
  // Every domain type has base labels of the same models, within the same elements.
  return [...capabilities.matchAll(/<secmodel>\s*<model>([^<]+)<\/model>/g)].map(([, model]) => model!);
}

/** Resolves when QEMU stands, its processors held. Faults: FAILOVER_BOOT, LIBVIRT_UNREACHABLE. */
export async function startDomain(uri: string, { xml, name, uuid }: AdaptedDomain, folder: string, { isTransient = false }: { /** Nothing of it is left when its QEMU ends. */ readonly isTransient?: boolean } = {}): Promise<void> {
  try {
    const there = await find(uri, uuid);
    if (there !== null && there.domainId !== null) throw new Fault('FAILOVER_BOOT', `the domain ${there.name} with the UUID ${uuid} runs here already`, { uuid, domain: there.name });
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // Before it is overwritten, and never by what we wrote ourselves.
    if (await readJson(notePath(folder), domainNote) === null) await replaceJson(notePath(folder), { uri, uuid, before: there === null ? null : await virsh(uri, ['dumpxml', '--inactive', '--security-info', uuid]) });
    if (isTransient) return await createDomain(uri, xml, startMsMax);
    await defineDomain(uri, xml);
    await virsh(uri, ['start', '--paused', uuid], { limitMs: startMsMax });
  } catch (error) {
    if (!isFault(error, 'LIBVIRT_REFUSED')) throw error;
    throw new Fault('FAILOVER_BOOT', `libvirt did not start ${name}: ${String(error.facts['said'])}`, { ...error.facts, domain: name }, error);
  }
}

/** The domain whose files are in `folder`. Null: they are not of libvirt's. */
export async function domainOf(folder: string): Promise<Extract<GuestPlace, { readonly kind: 'libvirt' }> | null> {
  const note = await readJson(notePath(folder), domainNote);
  return note === null ? null : { kind: 'libvirt', uri: note.uri, domain: note.uuid };
}

/** What was defined for a guest whose files in `folder` are about to go: its definition goes too, or becomes what it was before. Nothing when it was not libvirt's. Faults: LIBVIRT_*. */
export async function forgetDomain(folder: string): Promise<void> {
  const note = await readJson(notePath(folder), domainNote);
  if (note === null) return;
  const { uri, uuid, before } = note;
  const there = await findEnded(uri, uuid);
  // Somebody made it another one meanwhile, or runs it: then it is theirs.
  if (there !== null && there.domainId === null && isOurs(there.xml, folder)) await (before === null ? virsh(uri, ['undefine', uuid, '--keep-nvram']) : defineDomain(uri, before));
  await rm(notePath(folder), { force: true });
}

/** Its QEMU has ended; libvirt hears of that a moment later. */
async function findEnded(uri: string, uuid: string): Promise<LibvirtDomainFacts | null> {
  for (const endMs = performance.now() + endedMsMax; ; await delay(endedLookMs)) {
    const there = await find(uri, uuid);
    if (there === null || there.domainId === null || performance.now() > endMs) return there;
  }
}

async function find(uri: string, uuid: string): Promise<LibvirtDomainFacts | null> {
  try {
    return await lookUpDomain(uri, uuid);
  } catch (error) {
    if (isFault(error, 'QMP_UNREACHABLE')) return null;
    throw error;
  }
}

/** By its serial port's log or its disks, which lie in the folder. */
function isOurs(xml: string, folder: string): boolean {
  const { domain } = parseDomain(xml);
  const devices = child(domain, 'devices');
  if (devices === undefined) return false;
  const paths = [...children(devices, 'disk').map((disk) => attribute(child(disk, 'source'), 'file')), ...children(devices, 'serial').map((serial) => attribute(child(serial, 'source'), 'path'))];
  return paths.some((path) => path?.startsWith(`${folder}/`) === true);
}
