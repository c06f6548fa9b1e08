/**
 * Where a guest's QEMU is found, as one word of text: the path of a QMP socket of its own, the domain of a libvirt (`libvirt://DOMAIN`), or the number of a
 * guest of Proxmox VE (`pve://VMID`). A socket that a user named whom its daemon does not trust with more than that user has is `user://UID/PATH`: it is spoken to
 * only while that very user's process listens there (host/node/listener.ts), whatever lies at the path by then. Every role keeps and hands on this text alone; connect-guest.ts turns it into a connection. Pure.
 */
import { isAbsolute } from 'node:path';
import { ofListener, splitListener } from '../host/listener-path.ts';
import { Fault } from '../journal/fault.ts';

export type GuestPlace =
  /** `uid`: whose process has to listen there; absent: anybody's. */
  | { readonly kind: 'socket'; readonly path: string; readonly uid?: number }
  /** `domain`: name or UUID. `uri`: as virsh takes it. */
  | { readonly kind: 'libvirt'; readonly domain: string; readonly uri: string }
  /** `root`: the folder that stands for `/`, for trials without Proxmox VE. */
  | { readonly kind: 'pve'; readonly vmid: number; readonly root: string };

/** The system's libvirtd, whose guests are those that virt-manager and `virsh` as root show. */
export const libvirtUriDefault = 'qemu:///system';
/** Proxmox VE's own bounds (`pve-vmid`). */
const [vmidMin, vmidMax] = [100, 999_999_999];

/** Undefined: it is none. */
export function parsePlace(text: string): GuestPlace | undefined {
  if (isAbsolute(text)) return { kind: 'socket', path: text };
  const ofUser = splitListener(text);
  if (ofUser.uid !== undefined) return { kind: 'socket', path: ofUser.path, uid: ofUser.uid };
  const found = /^(libvirt|pve):\/\/([^/?#]+)(?:\?(.*))?$/.exec(text);
  if (found === null || /[\p{Cc}\s]/u.test(text)) return undefined;
  const [, scheme, host, query = ''] = found;
  const words = new URLSearchParams(query);
  const name = decoded(host!);
  const [key] = scheme === 'libvirt' ? ['uri'] : ['root'];
  if (name === undefined || [...words.keys()].some((one) => one !== key)) return undefined;
  const value = words.get(key!);
  if (scheme === 'libvirt') return isDomain(name) && isLocalUri(value ?? libvirtUriDefault) ? { kind: 'libvirt', domain: name, uri: value ?? libvirtUriDefault } : undefined;
  const vmid = Number(name);
  if (!/^\d{1,9}$/.test(name) || vmid < vmidMin || vmid > vmidMax || (value !== null && !isAbsolute(value))) return undefined;
  return { kind: 'pve', vmid, root: value ?? '/' };
}

/** As {@link parsePlace}. Fault REQUEST_INVALID. */
export function readPlace(text: string): GuestPlace {
  const place = parsePlace(text);
  if (place === undefined) throw new Fault('REQUEST_INVALID', `${text} is no absolute path of a QMP socket, no libvirt://DOMAIN and no pve://VMID`, { place: text });
  return place;
}

/** The text of a place: the same for the same place. */
export function formatPlace(place: GuestPlace): string {
  switch (place.kind) {
    case 'socket': return place.uid === undefined ? place.path : ofListener(place.path, place.uid);
    case 'libvirt': return `libvirt://${encodeURIComponent(place.domain)}${place.uri === libvirtUriDefault ? '' : `?uri=${encodeURIComponent(place.uri)}`}`;
    case 'pve': return `pve://${place.vmid}${place.root === '/' ? '' : `?root=${encodeURIComponent(place.root)}`}`;
    default: return place satisfies never;
  }
}

/** Of this host, over a socket of its own: other transports of libvirt's run commands that the URI names, and a guest elsewhere cannot be followed from here. */
export function isLocalUri(uri: string): boolean {
  return /^qemu(\+unix)?:\/\/\/(system|session)(\?socket=\/[^?&#]+)?$/.test(uri);
}

/** What libvirt takes for a domain's name, but for one that virsh would take for an option. */
function isDomain(name: string): boolean {
  return name !== '' && name.length <= 255 && !name.startsWith('-') && !/[\p{Cc}/]/u.test(name);
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return undefined;
    throw error;
  }
}
