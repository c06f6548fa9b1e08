/**
 * Finds the channel to a guest's agent by asking its QEMU: the virtio-serial port named as the agent expects, the chardev behind
 * it, and where that listens. Changes nothing, connects to nothing.
 */
import { ofListener } from '../host/listener-path.ts';
import { askOrNull } from './guest-disks.ts';
import type { QmpConnection } from './qmp.ts';

/** The port that qemu-ga opens by default (qemu-ga(8), --path). */
export const agentPortName = 'org.qemu.guest_agent.0';

export type AgentChannel =
  /** `isOpen`: something in the guest has the port open. QEMU says so only while a client is connected or after one was: false proves nothing. */
  | { readonly kind: 'free'; readonly path: string; readonly isOpen: boolean }
  /** Another program of this host is connected: the chardev serves one at a time. */
  | { readonly kind: 'taken'; readonly path: string }
  /** No such port, or its chardev is no unix socket that this host's programs can connect to. `why` is for people. */
  | { readonly kind: 'none'; readonly why: string };

interface Child { readonly name: string; readonly type: string }
interface Chardev { readonly label: string; readonly filename: string; readonly 'frontend-open': boolean }

/** Where `-device` puts what has an id, and what has none. */
const deviceFolders = ['/machine/peripheral', '/machine/peripheral-anon'];

/** `uid`: who has to listen at the guest's monitor, and so has to here as well: the path is then `user://UID/PATH` (guest-place.ts). */
export async function findAgentChannel(qmp: QmpConnection, uid?: number): Promise<AgentChannel> {
  const label = await findChardev(qmp);
  if (label === null) return { kind: 'none', why: `the guest has no virtio-serial port named ${agentPortName}` };
  const chardevs = await askOrNull<readonly Chardev[]>(qmp, 'query-chardev');
  const found = chardevs?.find((chardev) => chardev.label === label);
  if (found === undefined) return { kind: 'none', why: `the port ${agentPortName} has no chardev` };
  const channel = describeChannel(found);
  return channel.kind === 'none' || uid === undefined ? channel : { ...channel, path: ofListener(channel.path, uid) };
}

/** QEMU 7.2 writes `unix:PATH,server=on`, before a client has come with `disconnected:` ahead (chardev/char-socket.c). Pure. */
export function describeChannel({ label, filename, 'frontend-open': isOpen }: Chardev): AgentChannel {
  const parts = /^(disconnected:)?unix:(\/.*?),server(?:=on)?(?:,|$| <->)/.exec(filename);
  if (parts === null) return { kind: 'none', why: `the chardev ${label} of the port ${agentPortName} is no listening unix socket (${filename})` };
  const path = parts[2]!;
  return parts[1] === undefined ? { kind: 'taken', path } : { kind: 'free', path, isOpen };
}

async function findChardev(qmp: QmpConnection): Promise<string | null> {
  for (const folder of deviceFolders) {
    for (const { name, type } of await askOrNull<readonly Child[]>(qmp, 'qom-list', { path: folder }) ?? []) {
      if (type !== 'child<virtserialport>') continue;
      const path = `${folder}/${name}`;
      if (await askOrNull<string>(qmp, 'qom-get', { path, property: 'name' }) !== agentPortName) continue;
      const label = await askOrNull<string>(qmp, 'qom-get', { path, property: 'chardev' });
      if (label !== null && label !== '') return label;
    }
  }
  return null;
}
