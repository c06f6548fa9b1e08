/**
 * Which QEMU devices are started again elsewhere, and which of their properties a guest can notice. Two closed lists,
 * used when recording and again when starting: what a source announces goes into a command line at the target, so
 * nothing but what stands here ever does. Host devices, character devices and shared memory are absent on purpose.
 */

/** `drive`: a drive for removable media, started empty. `agent`: the port of QEMU's guest agent, with a channel of this host's behind it. */
export type DeviceRole = 'controller' | 'disk' | 'drive' | 'nic' | 'agent' | 'other';

const virtioPci = (name: string): string[] => [`${name}-pci`, `${name}-pci-transitional`, `${name}-pci-non-transitional`];

const rolesByDriver: ReadonlyMap<string, DeviceRole> = new Map((Object.entries({
  controller: [
    ...virtioPci('virtio-scsi'), 'virtio-scsi-device', 'virtio-scsi-ccw', 'lsi53c895a', 'lsi53c810', 'megasas', 'megasas-gen2', 'mptsas1068', 'pvscsi', 'am53c974', 'dc390',
    'ahci', 'ich9-ahci', 'piix3-ide', 'piix4-ide', ...virtioPci('virtio-serial'),
    'qemu-xhci', 'nec-usb-xhci', 'usb-ehci', 'ich9-usb-ehci1', 'ich9-usb-ehci2', 'ich9-usb-uhci1', 'ich9-usb-uhci2', 'ich9-usb-uhci3', 'ich9-usb-uhci4', 'ich9-usb-uhci5', 'ich9-usb-uhci6',
    'piix3-usb-uhci', 'piix4-usb-uhci', 'pci-ohci', 'usb-hub',
    'pcie-root-port', 'ioh3420', 'pcie-pci-bridge', 'pci-bridge', 'i82801b11-bridge', 'x3130-upstream', 'xio3130-downstream', 'intel-iommu',
  ],
  disk: [...virtioPci('virtio-blk'), 'virtio-blk-device', 'virtio-blk-ccw', 'scsi-hd', 'ide-hd', 'nvme', 'nvme-ns', 'usb-storage'],
  drive: ['ide-cd', 'scsi-cd'],
  nic: [
    ...virtioPci('virtio-net'), 'virtio-net-device', 'virtio-net-ccw', 'e1000', 'e1000-82540em', 'e1000-82544gc', 'e1000-82545em', 'e1000e', 'igb', 'rtl8139', 'ne2k_pci', 'pcnet', 'vmxnet3',
    'i82550', 'i82551', 'i82557a', 'i82557b', 'i82557c', 'i82558a', 'i82558b', 'i82559a', 'i82559b', 'i82559c', 'i82559er', 'i82562', 'i82801', 'tulip', 'usb-net',
  ],
  agent: ['virtserialport'],
  other: [
    ...virtioPci('virtio-balloon'), ...virtioPci('virtio-rng'), 'virtio-rng-device', 'virtio-rng-ccw', 'virtio-balloon-device',
    'VGA', 'secondary-vga', 'cirrus-vga', 'vmware-svga', 'bochs-display', 'virtio-vga', 'virtio-gpu-pci', 'ramfb',
    'usb-tablet', 'usb-kbd', 'usb-mouse', 'virtio-keyboard-pci', 'virtio-mouse-pci', 'virtio-tablet-pci', 'i6300esb', 'ib700', 'pvpanic', 'pvpanic-pci', 'vmcoreinfo', 'vmgenid',
  ],
} satisfies Record<DeviceRole, string[]>) as [DeviceRole, string[]][]).flatMap(([role, drivers]) => drivers.map((driver) => [driver, role] as const)));

/** Display devices whose host side (SPICE, OpenGL) is not there, and the one that a guest's firmware and drivers take in its place. */
const substitutes: ReadonlyMap<string, string> = new Map([['qxl-vga', 'VGA'], ['virtio-vga-gl', 'virtio-vga'], ['virtio-gpu-gl-pci', 'virtio-gpu-pci']]);

export function substituteFor(driver: string): string | undefined {
  return substitutes.get(driver);
}

export function deviceRole(driver: string): DeviceRole | undefined {
  return rolesByDriver.get(driver);
}

/** Bridges name their bus as they are named themselves; all others append the number of the bus. */
export function isBridge(driver: string): boolean {
  return /^(pcie-root-port|ioh3420|pcie-pci-bridge|pci-bridge|i82801b11-bridge|x3130-upstream|xio3130-downstream)$/.test(driver);
}

/** Whether the device of a disk can be told what to do when a request of its fails (`werror`, `rerror`). */
export function tellsOfErrors(driver: string): boolean {
  return deviceRole(driver) === 'disk' && driver !== 'nvme' && driver !== 'nvme-ns';
}

/** Properties by what they belong to; each is recorded where a device has it and it is not at its default. */
const properties: ReadonlySet<string> = new Set([
  // PCI and bridges. The address is recorded apart.
  'multifunction', 'rombar', 'acpi-index', 'chassis', 'chassis_nr', 'slot', 'msi', 'shpc', 'hotplug', 'bus-reserve', 'io-reserve', 'mem-reserve', 'pref32-reserve', 'pref64-reserve',
  // Virtio transport.
  'disable-legacy', 'disable-modern', 'iommu_platform', 'ats', 'packed', 'page-per-vq', 'event_idx', 'indirect_desc',
  // Every kind of disk.
  'bootindex', 'serial', 'logical_block_size', 'physical_block_size', 'min_io_size', 'opt_io_size', 'discard_granularity', 'write-cache', 'werror', 'rerror',
  // virtio-blk, virtio-scsi.
  'num-queues', 'queue-size', 'discard', 'write-zeroes', 'config-wce', 'seg-max-adjust', 'request-merging', 'max-discard-sectors', 'max-write-zeroes-sectors',
  'num_queues', 'virtqueue_size', 'max_sectors', 'cmd_per_lun', 'param_change', 'seg_max_adjust',
  // SCSI and IDE.
  'scsi-id', 'lun', 'channel', 'ver', 'vendor', 'product', 'wwn', 'port_wwn', 'port_index', 'device_id', 'rotation_rate', 'removable', 'dpofua', 'scsi_version', 'max_unmap_size', 'max_io_size',
  'unit', 'model',
  // NVMe.
  'max_ioqpairs', 'msix_qsize', 'mdts', 'use-intel-id', 'nsid', 'uuid', 'eui64', 'nguid', 'shared',
  // USB.
  'port', 'masterbus', 'firstport', 'p2', 'p3', 'ports', 'usb_version',
  // NICs.
  'mac', 'mq', 'rx_queue_size', 'tx_queue_size', 'host_mtu', 'csum', 'gso', 'guest_csum', 'guest_tso4', 'guest_tso6', 'guest_ecn', 'guest_ufo', 'guest_announce', 'host_tso4', 'host_tso6', 'host_ecn', 'host_ufo',
  'mrg_rxbuf', 'status', 'ctrl_vq', 'ctrl_rx', 'ctrl_vlan', 'ctrl_rx_extra', 'ctrl_mac_addr', 'ctrl_guest_offloads', 'speed', 'duplex', 'hash', 'rss', 'mitigation',
  // Displays, virtio-serial, balloon, random, I/O memory management.
  'vgamem_mb', 'xres', 'yres', 'edid', 'max_outputs', 'max_ports', 'nr', 'deflate-on-oom', 'free-page-reporting', 'max-bytes', 'period',
  'intremap', 'caching-mode', 'eim', 'device-iotlb', 'aw-bits',
]);

export function isRecordedProperty(name: string): boolean {
  return properties.has(name);
}

/** Options of the machine that a guest can notice. Their defaults cannot be asked for: all that exist are recorded. */
export const machineOptions = [
  'usb', 'smm', 'vmport', 'hpet', 'acpi', 'graphics', 'sata', 'smbus', 'i8042', 'pit', 'pic', 'nvdimm', 'smbios-entry-point-type',
  'gic-version', 'virtualization', 'secure', 'highmem', 'its', 'iommu', 'ras',
] as const;
