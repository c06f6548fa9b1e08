/**
 * The images that guests write here: qcow2 overlays over a replica, or over a view of a restore point. Only the applier ever
 * writes what lies beneath. An overlay is whole and durable under its name, or not there: what an attempt that never booted
 * left half made must not be taken for finished by the next. One that a guest wrote to is never made anew.
 */
import { execFile } from 'node:child_process';
import { access, open, rename, stat, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { syncFolder } from '../../host/node/json-file.ts';
import type { NbdBacking } from '../../qemu/boot.ts';
import { reconnectSeconds } from '../../qemu/boot-disks.ts';

const run = promisify(execFile);

export type OverlayBase =
  | { readonly kind: 'replica'; readonly path: string }
  | { readonly kind: 'view'; readonly backing: NbdBacking; readonly sizeBytes: number };

/** `fileBytes`: the file's length from the start, sparse, for a guest that may not grow it. */
export async function makeOverlay(path: string, base: OverlayBase, fileBytes?: number): Promise<void> {
  if (await isThere(path)) return;
  const aside = `${path}.new`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', ...baseArguments(base, aside)]);
  if (fileBytes !== undefined) await truncate(aside, fileBytes);
  await putInPlace(aside, path);
}

/** The view is named in the image, so that nobody takes the image for whole, and for who starts QEMU by the image alone (Proxmox VE); it is not looked at here: it may not be served yet. */
function baseArguments(base: OverlayBase, aside: string): string[] {
  if (base.kind === 'replica') return ['-b', base.path, aside];
  const { backing: { socketPath, exportName }, sizeBytes } = base;
  // The format that the image names is put over it: without `raw` QEMU would take the export for a file's place.
  const view = { driver: 'raw', file: { driver: 'nbd', server: { type: 'unix', path: socketPath }, export: exportName, 'reconnect-delay': reconnectSeconds } };
  return ['-u', '-b', `json:${JSON.stringify(view)}`, aside, String(sizeBytes)];
}

const imageInfo = z.object({ 'backing-filename': z.string().optional() });

/** Whether an image reads from another where it holds nothing itself. */
export async function isBacked(path: string): Promise<boolean> {
  const { stdout } = await run('qemu-img', ['info', '-U', '--output', 'json', path]);
  return imageInfo.parse(JSON.parse(stdout))['backing-filename'] !== undefined;
}

/** What images take on the disk; one that is not there takes nothing. */
export async function allocatedBytes(paths: readonly string[]): Promise<number> {
  let total = 0;
  for (const path of paths) {
    try {
      total += (await stat(path)).blocks * 512;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return total;
}

export async function putInPlace(made: string, path: string): Promise<void> {
  const file = await open(made, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(made, path);
  await syncFolder(dirname(path));
}

export async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
