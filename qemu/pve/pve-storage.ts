/**
 * Where a storage of Proxmox VE keeps its images (`/etc/pve/storage.cfg`, pvesm(1)). Proxmox VE starts a guest from volumes of its storages alone (a config may name no other file:
 * `filename_to_volume_id` of qemu-server), so that what a guest is started from here has to be one. Changes nothing.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '../../journal/fault.ts';

export interface PveStorage { readonly type: string; readonly name: string; /** Of `path`, `content` and the like. */ readonly options: ReadonlyMap<string, string> }

/** Sections `TYPE: NAME`, then `key value` behind white space (`PVE::SectionConfig`). Pure. */
export function parsePveStorages(text: string): PveStorage[] {
  const found: { type: string; name: string; options: Map<string, string> }[] = [];
  for (const line of text.split('\n')) {
    const [, type, name] = /^([a-z][a-z0-9]*):\s*(\S+)\s*$/.exec(line) ?? [];
    if (type !== undefined) found.push({ type, name: name!, options: new Map() });
    const [, key, value = ''] = /^\s+([a-z][a-z0-9-]*)(?:\s+(.*?))?\s*$/.exec(line) ?? [];
    if (key !== undefined) found.at(-1)?.options.set(key, value);
  }
  return found;
}

/** Absolute: the folder in which its images lie, by VMID. Fault FAILOVER_BOOT. */
export async function imageFolder({ root, storage }: { readonly root: string; readonly storage: string }): Promise<string> {
  const path = join(root, 'etc/pve/storage.cfg');
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Fault('FAILOVER_BOOT', `this host has no Proxmox VE: there is no ${path}`, { path }, error);
  });
  const found = parsePveStorages(text).find(({ name }) => name === storage);
  const flaw = (why: string): Fault => new Fault('FAILOVER_BOOT', `the storage ${storage} of Proxmox VE ${why}: pvesm add dir ${storage} --path FOLDER --content images`, { storage });
  const folder = found?.options.get('path');
  if (found === undefined) throw flaw('is not there');
  if (found.type !== 'dir' || folder === undefined) throw flaw(`is of the type ${found.type}, and a folder is needed`);
  if (found.options.has('disable')) throw flaw('is switched off');
  // Proxmox VE's default for folders has images (PVE/Storage/DirPlugin.pm).
  if (!(found.options.get('content') ?? 'images').split(',').includes('images')) throw flaw('may hold no disk images');
  return join(root, folder, /(?:^|,)images=([^,]+)/.exec(found.options.get('content-dirs') ?? '')?.[1] ?? 'images');
}
