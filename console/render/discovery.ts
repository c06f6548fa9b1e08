/** The table of the guests that there are. Pure. */
import type { Discovery } from '../../qemu/discover-guests.ts';
import { formatTable, tint, type Look } from './look.ts';
import { printable } from './units.ts';

const ways = { own: 'its own', manager: 'libvirt’s', none: '–' } as const;

export function formatDiscovery(look: Look, { guests }: Discovery): string {
  if (guests.length === 0) return 'no guests were found on this host\n';
  const rows = guests.map(({ name, place, isRunning, monitor, needs }) => [
    printable(name), isRunning ? tint(look, 'good', 'runs') : tint(look, 'quiet', 'off'), place === null ? '–' : printable(place), ways[monitor], needs === null ? '' : printable(needs),
  ]);
  return `${formatTable(look, [{ head: 'guest' }, { head: 'state' }, { head: 'place' }, { head: 'monitor', isExtra: true }, { head: 'needs', isExtra: true }], rows)}\n`;
}
