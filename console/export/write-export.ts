/**
 * Writes a point's disks into a folder, as images of another format, through qemu-img and the target's NBD server. It asks for no
 * point and keeps none: the caller holds it meanwhile. Invariants: a folder without `.part` in its name is whole, verified against
 * the point and durable; what was interrupted is begun anew, and two exports never write into one folder.
 */
import { lstat, mkdir, open, readdir, rename, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from '../../host/node/json-file.ts';
import { flockExclusive } from '../../host/node/libc.ts';
import { Fault } from '../../journal/fault.ts';
import type { PointDescription } from '../../replica-target/points/point-desk.ts';
import { compareArguments, convertArguments, exportFacts, nbdSource, planExport, type ExportFormat } from './export-plan.ts';
import { runQemuImg } from './qemu-img.ts';

export interface ExportProgress {
  readonly disk: string;
  readonly step: 'write' | 'verify';
  /** Of the whole export, by virtual size; writing and verifying are half each. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface WrittenExport {
  readonly folder: string;
  readonly factsPath: string;
  readonly disks: readonly { readonly name: string; readonly path: string; readonly sizeBytes: number; /** Space that the image takes. */ readonly fileBytes: number }[];
}

const factsName = 'export.json';

/** Faults: EXPORT_FAILED; the signal's reason when aborted. In both cases nothing is left. */
export async function writeExport(
  description: PointDescription, format: ExportFormat, to: string, socketPath: string, signal: AbortSignal, onProgress: (progress: ExportProgress) => void,
): Promise<WrittenExport> {
  const plan = planExport(description, format);
  const folder = join(to, plan.name);
  const part = `${folder}.part`;
  const refuseWhole = async (): Promise<void> => {
    if (await inodeOf(folder) !== null) throw new Fault('EXPORT_FAILED', `${folder} is there already, whole: remove it to have it written again`, { folder });
  };
  await refuseWhole();
  const taken = await takeFolder(part);
  try {
    await refuseWhole();
    const totalBytes = 2 * plan.disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    let beforeBytes = 0;
    for (const { name, exportName, fileName, sizeBytes } of plan.disks) {
      const source = nbdSource(socketPath, exportName);
      const path = join(part, fileName);
      const tell = (step: ExportProgress['step']) => (share: number): void => onProgress({ disk: name, step, doneBytes: beforeBytes + Math.floor(share * sizeBytes), totalBytes });
      tell('write')(0);
      await runQemuImg(convertArguments(source, format, path), signal, tell('write'));
      await syncFile(path);
      beforeBytes += sizeBytes;
      tell('verify')(0);
      const code = await runQemuImg(compareArguments(source, format, path), signal, tell('verify'), [1]);
      if (code !== 0) throw new Fault('EXPORT_FAILED', `${path} does not hold what ${exportName} does`, { path, exportName });
      beforeBytes += sizeBytes;
    }
    const facts = join(part, factsName);
    await writeFile(facts, `${JSON.stringify(exportFacts(description, format, plan, Date.now()), null, 2)}\n`);
    await syncFile(facts);
    signal.throwIfAborted();
    await syncFolder(part);
    await rename(part, folder);
    await syncFolder(to);
    const disks = await Promise.all(plan.disks.map(async ({ name, fileName, sizeBytes }) => {
      const path = join(folder, fileName);
      return { name, path, sizeBytes, fileBytes: (await lstat(path)).blocks * 512 };
    }));
    return { folder, factsPath: join(folder, factsName), disks };
  } catch (error) {
    await rm(part, { recursive: true, force: true });
    throw error;
  } finally {
    await taken.close();
  }
}

/** The folder to write into, with nothing in it of an earlier attempt. Locked as a folder: a lock file would have to be removed under the eyes of the next one. */
async function takeFolder(part: string): Promise<FileHandle> {
  const refuse = (why: string, cause?: unknown): Fault => new Fault('EXPORT_FAILED', `${part} cannot be written: ${why}`, { folder: part }, cause);
  let folder: FileHandle;
  try {
    // What it holds is all that the guest's disks do.
    await mkdir(part, { recursive: true, mode: 0o700 });
    folder = await open(part, 'r');
  } catch (error) {
    throw refuse((error as Error).message, error);
  }
  try {
    await flockExclusive(folder.fd);
    // Whoever had the lock may have renamed or removed the folder before it let go.
    if (await inodeOf(part) !== (await folder.stat()).ino) throw refuse('another export has just ended there');
    const { uid, mode } = await folder.stat();
    // In a folder that many may write to, somebody else could have made it, to have what is written led elsewhere.
    if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) throw refuse('it is there already, and others may write to it');
    for (const name of await readdir(part)) await rm(join(part, name), { recursive: true, force: true });
    return folder;
  } catch (error) {
    await folder.close();
    throw (error as NodeJS.ErrnoException).code === 'EWOULDBLOCK' ? refuse('another export is writing it') : error;
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Null: nothing is there. */
async function inodeOf(path: string): Promise<number | null> {
  return lstat(path).then(({ ino }) => ino, (error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
    throw error;
  });
}
