/**
 * The QEMU command line of a lab guest: a pure function of what the test asks for. It spells out each shape that
 * guests have in the field (device with and without id, named and unnamed nodes, main loop and I/O threads) and adds
 * no default device, so that what runs is what the test says.
 */
import type { LabDisk, LabGuestOptions } from './lab-guest.ts';

export interface LabPaths {
  readonly kernel: string;
  readonly initrd: string;
  readonly qmpPaths: readonly string[];
  readonly agentPath: string;
}

export function qemuArguments(options: LabGuestOptions, paths: LabPaths): string[] {
  // On a busy machine an emulated timer may tick too late for the kernel's check of it, which then takes it for broken and hangs.
  const words = ['console=ttyS0', 'quiet', 'no_timer_check', `af.mode=${options.mode ?? 'idle'}`];
  if (options.churn !== undefined) words.push(`af.churn=${options.churn}`);
  if (options.append !== undefined) words.push(options.append);
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', options.machine ?? 'q35', '-accel', process.env['AFTERIMAGE_ACCEL'] ?? 'tcg'],
    ...['-m', String(options.memoryMiB ?? 192)],
    ...['-kernel', paths.kernel, '-initrd', paths.initrd, '-append', words.join(' ')],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...paths.qmpPaths.flatMap((path, at) => [
      '-chardev',
      `socket,id=monitor${at},path=${path},server=on,wait=off`,
      '-mon',
      `chardev=monitor${at},mode=control`,
    ]),
    ...options.disks.flatMap(diskArguments),
    ...(options.hasAgent === true ? agentArguments(paths.agentPath) : []),
    ...(options.extraArgs ?? []),
  ];
}

/** As in qemu-ga's own documentation: the port's name is what the agent in the guest looks for. */
function agentArguments(path: string): string[] {
  return [
    ...['-chardev', `socket,id=agent0,path=${path},server=on,wait=off`],
    ...['-device', 'virtio-serial-pci', '-device', 'virtserialport,chardev=agent0,name=org.qemu.guest_agent.0'],
  ];
}

function diskArguments(disk: LabDisk, at: number): string[] {
  const { node, args } = nodeArguments(disk, at);
  const thread = disk.iothread === true ? `,iothread=thread${at}` : '';
  if (thread !== '') args.push('-object', `iothread,id=thread${at}`);
  const id = disk.id === null ? '' : `,id=${disk.id ?? `disk${at}`}`;
  if (disk.device === 'virtio-scsi') {
    // A controller for each disk: the I/O thread is the controller's.
    args.push('-device', `virtio-scsi-pci,id=scsi${at}${thread}`);
    args.push('-device', `scsi-hd,bus=scsi${at}.0,drive=${node}${id}`);
  } else {
    args.push('-device', `virtio-blk-pci,drive=${node}${thread}${id}`);
  }
  return args;
}

function nodeArguments(disk: LabDisk, at: number): { node: string; args: string[] } {
  const path = disk.path.replaceAll(',', ',,');
  if (disk.nodeName === null) {
    return {
      node: `drive${at}`,
      args: ['-drive', `if=none,id=drive${at},file=${path},format=${disk.format},discard=unmap`],
    };
  }
  const node = disk.nodeName ?? `node${at}`;
  return {
    node,
    args: [
      '-blockdev',
      `driver=file,node-name=${node}-file,filename=${path},discard=unmap`,
      '-blockdev',
      `driver=${disk.format},node-name=${node},file=${node}-file,discard=unmap`,
    ],
  };
}
