/**
 * Gives Proxmox VE a guest by a config file that was adapted for this host, has it start it with its processors held, and undoes that. What lies beside the guest's files says what
 * was made, before it is made; a config that is not the guest's is never overwritten, and a guest that came home gets its own config back.
 */
import { mkdir, readFile, readlink, rename, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { parseJson, readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { thawedConfig } from './adapt-config.ts';
import { parsePveConfig, parsePveOptions, pveValue } from './pve-config.ts';
import { listPveGuests, pveConfigPath, type PvePlace } from './pve-guest.ts';
import { imageFolder } from './pve-storage.ts';
import { qm } from './qm.ts';

/** Of this host. */
export interface PveHost {
  /** The folder that stands for `/`. */
  readonly root: string;
  /** A storage of type `dir`, by which Proxmox VE reaches what we made. */
  readonly storage: string;
  /** `qm`, with arguments that come first. */
  readonly command: readonly string[];
}

/** `before`: its owner's config, null: there was none. `links`: by which Proxmox VE reaches our files, and which. */
const guestNote = z.object({ vmid: z.number().int(), root: z.string(), command: z.array(z.string()), before: z.string().nullable(), links: z.array(z.object({ path: z.string(), file: z.string() })) });
type GuestNote = z.infer<typeof guestNote>;

const notePath = (folder: string): string => join(folder, 'pve.json');
const placeOf = ({ vmid, root }: Pick<GuestNote, 'vmid' | 'root'>): PvePlace => ({ kind: 'pve', vmid, root });

export interface PveStart {
  readonly host: PveHost;
  readonly vmid: number;
  /** Of the guest that was recorded: its `smbios1`'s UUID, by which a config is known for its own. */
  readonly uuid: string | undefined;
  /** Of the guest's files here; absolute. */
  readonly folder: string;
  /** Files there, and under which names Proxmox VE has them. */
  readonly volumes: readonly { readonly path: string; readonly file: string }[];
  /** The guest is at home: on its own disks, under its own config, which is lent to us. */
  readonly isHome: boolean;
  /** `before`: of the guest that is at home. */
  readonly config: (before: string | null) => string;
}

/** As Proxmox VE names a file of {@link PveStart.volumes}. */
export function volumeId({ storage }: Pick<PveHost, 'storage'>, vmid: number, file: string): string {
  return `${storage}:${vmid}/${file}`;
}

/** Resolves when QEMU stands, its processors held. Fault FAILOVER_BOOT. */
export async function startPveGuest({ host, vmid, uuid, folder, volumes, isHome, config }: PveStart): Promise<void> {
  const path = pveConfigPath({ kind: 'pve', vmid, root: host.root });
  const there = await textOf(path);
  const noted = await readJson(notePath(folder), guestNote);
  const isOurs = there !== null && noted !== null && there.includes(`${folder}/`);
  if (!isOurs) await refuseTaken({ host, vmid, uuid, there, isHome });
  const images = join(volumes.length === 0 ? '' : await imageFolder(host), String(vmid));
  const links = volumes.map(({ path: file, file: name }) => ({ path: join(images, name), file }));
  const before = isOurs ? noted.before : there;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // First: whatever dies from here on, what was there is known.
  await replaceJson(notePath(folder), { vmid, root: host.root, command: [...host.command], before, links });
  if (links.length > 0) await mkdir(images, { recursive: true });
  for (const one of links) await link(one);
  await replaceText(path, config(before));
  await qm(host.command, ['start', String(vmid)]);
}

/** It was told to run: when Proxmox VE starts it the next time, it runs at once. Nothing when it is not Proxmox VE's. */
export async function thawPveGuest(folder: string): Promise<void> {
  const found = await ownConfig(folder);
  if (found === null) return;
  const thawed = thawedConfig(found.text);
  if (thawed !== found.text) await replaceText(found.path, thawed);
}

/** As pulling the plug does, with Proxmox VE's knowledge. Whether it ended is for the caller to see: what `qm` refuses is told by its resolved words. */
export async function stopPveGuest(folder: string): Promise<string | null> {
  const found = await ownConfig(folder);
  if (found === null) return null;
  try {
    await qm(found.note.command, ['stop', String(found.note.vmid)]);
    return null;
  } catch (error) {
    if (!isFault(error)) throw error;
    return error.message;
  }
}

/** What was made for a guest whose files in `folder` are about to go, goes too: links and config, or it becomes what it was before. The guest does not run. */
export async function forgetPveGuest(folder: string): Promise<void> {
  const note = await readJson(notePath(folder), guestNote);
  if (note === null) return;
  const found = await ownConfig(folder);
  // Somebody made it another one meanwhile: then it is theirs.
  if (found !== null) await (note.before === null ? rm(found.path, { force: true }) : replaceText(found.path, note.before));
  for (const one of note.links) if (await isOurLink(one)) await rm(one.path, { force: true });
  const [first] = note.links;
  if (first !== undefined) await rmdir(dirname(first.path)).catch((error: NodeJS.ErrnoException) => { if (!['ENOENT', 'ENOTEMPTY'].includes(error.code ?? '')) throw error; });
  await rm(notePath(folder), { force: true });
}

/** Why Proxmox VE could not start a guest under this number here; null: nothing stands in its way. `isOwn`: tells a config that is the guest's own. */
export async function whyTaken(host: Pick<PveHost, 'root'>, vmid: number, isOwn: (config: string) => boolean = () => false): Promise<string | null> {
  const path = pveConfigPath({ kind: 'pve', vmid, root: host.root });
  const there = await textOf(path);
  if (there !== null && isOwn(there)) return null;
  if (there !== null) return `${vmid} is ${pveValue(parsePveConfig(there), 'name') ?? 'another guest'} here (${path})`;
  // Of the whole cluster, with its containers.
  const listed = await textOf(join(host.root, 'etc/pve/.vmlist'));
  const node = listed === null ? undefined : clusterList.safeParse(parseJson(listed)).data?.ids[String(vmid)]?.node;
  return node === undefined ? null : `${vmid} is a guest of the node ${node} in the same cluster`;
}

const clusterList = z.object({ ids: z.record(z.string(), z.object({ node: z.string() })) });

async function refuseTaken({ host, vmid, uuid, there, isHome }: Pick<PveStart, 'host' | 'vmid' | 'uuid' | 'isHome'> & { readonly there: string | null }): Promise<void> {
  if (isHome) {
    if (there !== null && hasUuid(there, uuid)) return;
    throw new Fault('FAILOVER_BOOT', `the guest ${vmid} of Proxmox VE comes home, and ${there === null ? 'its config is gone' : 'its number is another guest’s now'}: put its config back`, { vmid });
  }
  const why = await whyTaken(host, vmid);
  if (why !== null) throw new Fault('FAILOVER_BOOT', `the number ${why}: choose another for it here, with \`groups: { GROUP: { guests: { GUEST: { vmid: NUMBER } } } }\` in the target’s config`, { vmid });
}

/** The guest whose files are in `folder`. Null: they are not of Proxmox VE's. */
export async function pveGuestOf(folder: string): Promise<PvePlace | null> {
  const note = await readJson(notePath(folder), guestNote);
  return note === null ? null : placeOf(note);
}

/** The number of the guest of this host that has this UUID; null: there is none. */
export async function findPveGuest({ root }: Pick<PveHost, 'root'>, uuid: string | undefined): Promise<number | null> {
  for (const vmid of await listPveGuests(root)) if (hasUuid(await textOf(pveConfigPath({ kind: 'pve', vmid, root })) ?? '', uuid)) return vmid;
  return null;
}

/** Whether a config is that of the guest with this UUID. */
export function hasUuid(config: string, uuid: string | undefined): boolean {
  const own = parsePveOptions(`,${pveValue(parsePveConfig(config), 'smbios1') ?? ''}`).options.get('uuid');
  return own !== undefined && own.toLowerCase() === uuid?.toLowerCase();
}

/** Its config, while it is one that we wrote: it names the folder. */
async function ownConfig(folder: string): Promise<{ readonly note: GuestNote; readonly path: string; readonly text: string } | null> {
  const note = await readJson(notePath(folder), guestNote);
  if (note === null) return null;
  const path = pveConfigPath(placeOf(note));
  const text = await textOf(path);
  return text?.includes(`${folder}/`) === true ? { note, path, text } : null;
}

type Link = GuestNote['links'][number];

async function link({ path, file }: Link): Promise<void> {
  if (await isOurLink({ path, file })) return;
  try {
    await symlink(file, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new Fault('FAILOVER_BOOT', `${path} is there already, and is another guest’s image`, { path }, error);
  }
}

async function isOurLink({ path, file }: Link): Promise<boolean> {
  try {
    return await readlink(path) === file;
  } catch (error) {
    // EINVAL: it is no link.
    if (['ENOENT', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

async function textOf(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** As Proxmox VE writes its own (`PVE::Tools::file_set_contents`); its cluster file system sets owner and mode, and makes it durable. */
async function replaceText(path: string, text: string): Promise<void> {
  const aside = join(dirname(path), `${basename(path)}.tmp.${process.pid}`);
  try {
    await writeFile(aside, text, { mode: 0o640 });
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Fault('FAILOVER_BOOT', `${path} cannot be written (${code}): the target has to run as root on Proxmox VE, and its cluster needs a quorum`, { path, error: code }, error);
  }
}
