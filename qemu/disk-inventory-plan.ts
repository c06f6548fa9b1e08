/**
 * Which of a guest's block devices are disks to protect, and where beneath each device its content is tracked. Pure: it
 * reads what QEMU answered (guest-disks.ts asks). Invariant: a disk is listed only when its writes all go through
 * `trackNode`; whatever is left out is named with the reason.
 */

/** What we read of `query-block`. */
export interface BlockInfo {
  readonly device: string;
  readonly qdev?: string;
  readonly removable: boolean;
  readonly inserted?: { readonly 'node-name'?: string; readonly ro: boolean; readonly image: { readonly 'virtual-size': number } };
}

/** What we read of `query-named-block-nodes`. */
export interface NodeInfo {
  readonly 'node-name': string;
  readonly drv: string;
  readonly ro: boolean;
  readonly file: string;
  readonly image?: {
    readonly filename: string;
    readonly 'virtual-size': number;
    readonly 'format-specific'?: { readonly type: string; readonly data: Readonly<Record<string, unknown>> };
  };
}

/** What we read of `x-debug-query-block-graph`: the only answer of QEMU 7.2 that says which node lies beneath which. */
export interface BlockGraph {
  readonly nodes: readonly { readonly id: number; readonly type: string; readonly name: string }[];
  readonly edges: readonly { readonly parent: number; readonly child: number; readonly name: string }[];
}

export interface GuestDisk {
  /** Stable across restarts of the guest: the device's id, else its drive's id, else its QOM path; on a storage daemon as the caller named it. */
  readonly name: string;
  /** QOM path of the device (or of its part that holds the drive), for `qom-set`; null on a storage daemon. */
  readonly qdev: string | null;
  /** The node directly under the device. */
  readonly topNode: string;
  /** The first node at or below `topNode` that is no filter: bitmaps belong here. */
  readonly trackNode: string;
  /** Its driver: qcow2, raw, … */
  readonly driver: string;
  /** Whether a bitmap on `trackNode` can outlive QEMU. */
  readonly isBitmapPersistable: boolean;
  readonly sizeBytes: number;
  /** Nodes beneath `topNode`, top-down: filters, `trackNode`, then its backing files. */
  readonly chain: readonly string[];
}

export interface SkippedDisk {
  readonly name: string;
  readonly qdev: string | null;
  readonly reason: string;
}

export interface DiskInventory {
  readonly disks: readonly GuestDisk[];
  readonly skipped: readonly SkippedDisk[];
}

/** Drivers that pass a guest's writes on unchanged (QEMU's block drivers with `is_filter`, under the names that the node lists use). */
const filterDrivers: ReadonlySet<string> = new Set([
  'throttle', 'copy-on-read', 'compress', 'copy-before-write', 'backup-top', 'mirror_top', 'commit_top', 'preallocate', 'blkreplay', 'blkdebug', 'blklogwrites', 'blkverify', 'replication',
]);
/** Every node of ours has such a name, whatever its driver. */
const ownPrefix = 'afterimage-';

/** Devices that hold firmware or a card, not a disk, by the start of their QOM type. */
const notDisks: readonly (readonly [string, string])[] = [['cfi.pflash', 'firmware flash'], ['sd-card', 'an SD card'], ['spapr-nvram', 'firmware memory'], ['floppy', 'a floppy drive']];

export class NodeLookup {
  readonly #nodes: ReadonlyMap<string, NodeInfo>;
  readonly #childrenOf = new Map<string, Map<string, string>>();

  /** Without a graph, nothing beneath a node can be seen. */
  constructor(nodes: readonly NodeInfo[], graph: BlockGraph | null) {
    this.#nodes = new Map(nodes.map((node) => [node['node-name'], node]));
    const names = new Map(graph?.nodes.filter(({ type }) => type === 'block-driver').map(({ id, name }) => [id, name]));
    for (const { parent, child, name } of graph?.edges ?? []) {
      const parentName = names.get(parent);
      const childName = names.get(child);
      if (parentName === undefined || childName === undefined) continue;
      const children = this.#childrenOf.get(parentName) ?? new Map<string, string>();
      this.#childrenOf.set(parentName, children.set(name, childName));
    }
  }

  node(name: string): NodeInfo | undefined {
    return this.#nodes.get(name);
  }

  child(node: string, name: string): string | undefined {
    return this.#childrenOf.get(node)?.get(name);
  }

  isFilter(name: string): boolean {
    return name.startsWith(ownPrefix) || filterDrivers.has(this.#nodes.get(name)?.drv ?? '');
  }

  /** The node that holds the content of `name`: itself, or the first non-filter beneath it; undefined when it cannot be seen. */
  tracked(name: string): NodeInfo | undefined {
    const below = this.#isolate(name).find((node) => !this.isFilter(node));
    return below === undefined ? undefined : this.node(below);
  }

  /** `name`, then what lies beneath it: a filter's one child, a format's backing file. Not the protocol nodes. */
  #isolate(name: string): string[] {
    const seen: string[] = [];
    for (let at: string | undefined = name; at !== undefined && !seen.includes(at);) {
      seen.push(at);
      // Mirror and commit filters have their child under "backing", blkdebug under "image", all others under "file".
      at = this.isFilter(at) ? this.child(at, 'file') ?? this.child(at, 'backing') ?? this.child(at, 'image') : this.child(at, 'backing');
    }
    return seen;
  }

  below(name: string): string[] {
    return this.#isolate(name).slice(1);
  }
}

export function planGuestDisks(blocks: readonly BlockInfo[], lookup: NodeLookup, deviceTypes: ReadonlyMap<string, string>): DiskInventory {
  const disks: GuestDisk[] = [];
  const skipped: SkippedDisk[] = [];
  const taken = new Set<string>();
  for (const block of blocks) {
    const qdev = block.qdev ?? null;
    const wished = deviceName(block);
    const name = taken.has(wished) && qdev !== null ? qdev : wished;
    taken.add(name);
    const reason = whyNot(block, deviceTypes.get(block.qdev ?? ''));
    const topNode = block.inserted?.['node-name'];
    if (reason !== null || topNode === undefined || qdev === null) {
      skipped.push({ name, qdev, reason: reason ?? 'its node has no name' });
      continue;
    }
    const found = describe(lookup, name, qdev, topNode);
    if ('reason' in found) skipped.push(found);
    else disks.push(found);
  }
  return { disks, skipped };
}

/** For a storage daemon, which has nodes but no devices. */
export function planNodeDisks(wanted: readonly { readonly name: string; readonly node: string }[], lookup: NodeLookup): DiskInventory {
  const found = wanted.map(({ name, node }) => (lookup.node(node) === undefined
    ? { name, qdev: null, reason: `there is no node ${node}` }
    : describe(lookup, name, null, node)));
  return {
    disks: found.filter((disk): disk is GuestDisk => !('reason' in disk)),
    skipped: found.filter((disk): disk is SkippedDisk => 'reason' in disk),
  };
}

function describe(lookup: NodeLookup, name: string, qdev: string | null, topNode: string): GuestDisk | SkippedDisk {
  const track = lookup.tracked(topNode);
  if (track?.image === undefined) return { name, qdev, reason: `what lies beneath its node ${topNode} cannot be seen` };
  if (track.ro) return { name, qdev, reason: 'read-only' };
  return {
    name, qdev, topNode,
    trackNode: track['node-name'],
    driver: track.drv,
    isBitmapPersistable: isBitmapPersistable(track),
    sizeBytes: track.image['virtual-size'],
    chain: lookup.below(topNode),
  };
}

/** qcow2 keeps bitmaps since version 3 ("compat" 1.1), unless it was found corrupt. */
function isBitmapPersistable(node: NodeInfo): boolean {
  const data = node.image?.['format-specific']?.data;
  return node.drv === 'qcow2' && data !== undefined && data['compat'] !== '0.10' && data['corrupt'] !== true;
}

function whyNot(block: BlockInfo, type: string | undefined): string | null {
  const special = notDisks.find(([start]) => type?.startsWith(start) ?? false);
  if (special !== undefined) return special[1];
  // First of the two: QEMU calls a drive without a device removable.
  if (block.qdev === undefined || block.qdev === '') return 'attached to no device';
  if (block.removable) return block.inserted === undefined ? 'a removable drive, empty' : 'a removable drive';
  if (block.inserted === undefined) return 'empty';
  return block.inserted.ro ? 'read-only' : null;
}

function deviceName(block: BlockInfo): string {
  const id = block.qdev === undefined ? undefined : deviceId(block.qdev);
  return id ?? (block.device === '' ? block.qdev ?? '(unnamed)' : block.device);
}

/** The id in `/machine/peripheral/ID[/…]`, and in a plain `ID`, as some devices report themselves. */
function deviceId(qdev: string): string | undefined {
  if (!qdev.startsWith('/')) return qdev === '' ? undefined : qdev;
  return /^\/machine\/peripheral\/([^/]+)/.exec(qdev)?.[1];
}
