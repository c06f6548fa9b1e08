/**
 * The images that a failover boots: overlays over the replica, overlays over a view of an older point, or the guest's own old disks when it comes home.
 * Made where they are not there yet; what a guest wrote to is never made anew.
 */
import { realpath } from 'node:fs/promises';
import type { BootDisk } from '../../qemu/boot.ts';
import type { GroupStore } from '../store/store.ts';
import type { FailoverNote, NotedView } from './failover-note.ts';
import { overlayPath } from './guest-launch.ts';
import { isBacked, isThere, makeOverlay } from './overlays.ts';

/** `viewSocketPath`: where this target serves views. */
export function bootImages(store: GroupStore, { isHome, view, folder }: FailoverNote, viewSocketPath: string): Promise<BootDisk[]> {
  if (isHome) return ownDisks(store);
  return view === null ? overlayReplica(store, folder) : overlayView(view, folder, viewSocketPath);
}

/** Under their own paths, not those of the links by which they were reached. */
async function ownDisks(store: GroupStore): Promise<BootDisk[]> {
  const disks: BootDisk[] = [];
  for (const { disk, name, replicaPath, isAtApplied } of store.report().disks) {
    if (isAtApplied) disks.push({ disk, name, path: await realpath(replicaPath), format: 'raw' });
  }
  return disks;
}

async function overlayReplica(store: GroupStore, folder: string): Promise<BootDisk[]> {
  const overlays: BootDisk[] = [];
  for (const { disk, name, replicaPath, isAtApplied } of store.report().disks) {
    if (!isAtApplied) continue; // added after the point that boots
    const path = overlayPath(folder, disk);
    await makeOverlay(path, { kind: 'replica', path: replicaPath });
    overlays.push({ disk, name, path, format: 'qcow2' });
  }
  return overlays;
}

/** Of a guest that ran before, some images may have come home already. */
async function overlayView(view: NotedView, folder: string, viewSocketPath: string): Promise<BootDisk[]> {
  const overlays: BootDisk[] = [];
  for (const { disk, name, sizeBytes, exportName } of view.disks) {
    const path = overlayPath(folder, disk);
    const backing = { socketPath: viewSocketPath, exportName };
    if (!(await isThere(path))) await makeOverlay(path, { kind: 'view', backing, sizeBytes });
    overlays.push({ disk, name, path, format: 'qcow2', ...(await isBacked(path) ? { backing } : {}) });
  }
  return overlays;
}
