/** Commands about guests that are not protected yet: `guests` lists what there is, `add-monitor` gives one of a manager a monitor of ours. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { libvirtUriDefault, readPlace } from '../../qemu/guest-place.ts';
import { monitorArguments } from '../../qemu/own-monitor-plan.ts';
import { pveValue } from '../../qemu/pve/pve-config.ts';
import { pveOwnMonitorPath, readPveConfig, type PvePlace } from '../../qemu/pve/pve-guest.ts';
import { UsageError } from '../exit-code.ts';
import { formatDiscovery } from '../render/discovery.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';

interface GuestsOptions { readonly libvirt?: string; readonly pveRoot: string; readonly json?: true }

export function addDiscoveryCommands(program: Command): void {
  program.command('guests').description('list the guests that run here or are defined here, and what each needs to be protected')
    .option('--libvirt <uri>', 'ask this libvirt', libvirtUriDefault)
    .option('--pve-root <folder>', 'where Proxmox VE’s folders begin', '/')
    .option('--json', 'as JSON')
    .action(async ({ libvirt, pveRoot, json }: GuestsOptions) => {
      const { discoverGuests } = await import('../../qemu/discover-guests.ts');
      const found = await discoverGuests({ uri: libvirt ?? libvirtUriDefault, pveRoot: resolve(pveRoot) });
      if (json === true) return printJson(found);
      print(formatDiscovery(lookOf(process.stdout), found));
      for (const note of found.notes) printAside(`${note}\n`);
    });

  program.command('add-monitor').description('give a guest of libvirt or Proxmox VE a QMP socket for us, from its next start on').argument('<place>', 'libvirt://DOMAIN or pve://VMID')
    .option('--socket <path>', 'where it is to listen; ends in afterimage.qmp', (path) => resolve(path))
    .action(async (text: string, { socket }: { readonly socket?: string }) => {
      const place = readPlace(text);
      if (place.kind === 'socket') throw new UsageError('a guest with a QMP socket has what it needs');
      if (place.kind === 'pve') return print(await tellPve(place, socket));
      const { addMonitor } = await import('../../qemu/libvirt/add-monitor.ts');
      const { path, wasThere, isRunningWithout } = await addMonitor(place, socket);
      print(`${place.domain} ${wasThere ? 'has' : 'was given'} a monitor for us at ${path}${isRunningWithout ? ', from its next start on; until then it is followed through libvirt' : ''}\n`);
    });
}

/** Its config belongs to a cluster and is changed by Proxmox VE's own tool alone, as root. */
async function tellPve(place: PvePlace, socket: string | undefined): Promise<string> {
  const before = pveValue((await readPveConfig(place)).config, 'args');
  const args = [...(before === undefined ? [] : [before]), ...monitorArguments(socket ?? pveOwnMonitorPath(place))].join(' ');
  return `qm set ${place.vmid} --args '${args.replaceAll('\'', '\'\\\'\'')}'\n`;
}
