/**
 * Records a guest's firmware: the flash images and, while it is small, the content of the variable store (boot entries,
 * enrolled keys), read from the file beneath its node. The code is recorded by path alone: the target has its own copy.
 */
import { isAbsolute } from 'node:path';
import type { NodeInfo, NodeLookup } from './disk-inventory-plan.ts';
import { askOrNull } from './guest-disks.ts';
import { withNamedFile } from './hardware-files.ts';
import type { GuestHardware } from './hardware.ts';
import type { QmpConnection } from './qmp.ts';

/** Variable stores have 128 to 528 KiB; the record travels in one control message (journal/limits.ts `controlBytesMax`). */
const varsBytesMax = 1024 * 1024;

type Firmware = NonNullable<GuestHardware['firmware']>;
interface Flash { readonly unit: number; readonly qdev: string; readonly node: NodeInfo; readonly filePath: string }

/** `uid`: as for `recordFiles`. */
export async function recordFirmware(qmp: QmpConnection, lookup: NodeLookup, biosPath: string | undefined, uid?: number): Promise<{ firmware: Firmware | undefined; notes: string[] }> {
  const notes: string[] = [];
  const flashes = await listFlashes(qmp, lookup);
  const code = flashes.find(({ unit }) => unit === 0);
  if (code === undefined) return { firmware: biosPath === undefined ? undefined : { biosPath }, notes };
  const firmware: Firmware = { codePath: code.filePath, codeFormat: code.node.drv };
  const isSecure = await askOrNull<boolean>(qmp, 'qom-get', { path: code.qdev, property: 'secure' });
  if (isSecure === true) firmware.isSecure = true;
  if (!code.node.ro && !flashes.some(({ unit }) => unit === 1)) notes.push('The firmware’s variables lie in its code image and are not kept.');
  const vars = flashes.find(({ unit }) => unit === 1);
  if (vars !== undefined) {
    firmware.varsPath = vars.filePath;
    firmware.varsFormat = vars.node.drv;
    const content = await readVariables(vars.filePath, uid);
    if ('base64' in content) firmware.varsContentBase64 = content.base64;
    else notes.push(`The firmware’s variables in ${vars.filePath} are not kept: ${content.why}.`);
  }
  return { firmware, notes };
}

async function listFlashes(qmp: QmpConnection, lookup: NodeLookup): Promise<Flash[]> {
  const blocks = await qmp.execute<{ qdev?: string; inserted?: { 'node-name'?: string } }[]>('query-block');
  const flashes: Flash[] = [];
  for (const { qdev, inserted } of blocks) {
    // "/machine/system.flash0" on a PC, "/machine/virt.flash0" on ARM
    const unit = /^\/machine\/\w+\.flash([01])$/.exec(qdev ?? '')?.[1];
    const node = inserted?.['node-name'] === undefined ? undefined : lookup.tracked(inserted['node-name']);
    if (qdev === undefined || unit === undefined || node === undefined) continue;
    flashes.push({ unit: Number(unit), qdev, node, filePath: node.image?.filename ?? node.file });
  }
  return flashes;
}

async function readVariables(path: string, uid: number | undefined): Promise<{ base64: string } | { why: string }> {
  // A relative path is relative to where QEMU was started, which nobody tells.
  if (!isAbsolute(path)) return { why: 'its path is not absolute' };
  try {
    return await withNamedFile(path, uid, async (file, { size }) => (size > varsBytesMax ? { why: `it has ${size} bytes, more than ${varsBytesMax}` } : { base64: (await file.readFile()).toString('base64') }));
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error)) throw error;
    return { why: error.message };
  }
}
