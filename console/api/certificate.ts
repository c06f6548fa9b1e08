/** The certificate that the API shows to the network: files of the operator's, or one that the daemon makes for itself once. */
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { z } from 'zod';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { makeCertificate, type OwnCertificate } from '../../journal/identity.ts';

const fileShape = z.object({ key: z.string().min(1), cert: z.string().min(1) });

/** Made at the first call and kept in `folder`, so that whoever pinned it is not surprised. */
export async function ownCertificate(folder: string, name: string): Promise<OwnCertificate> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, 'certificate.json');
  const known = await readJson(path, fileShape);
  if (known !== null) return known;
  const made = await makeCertificate(name);
  await replaceJson(path, made);
  return made;
}

/** Fault CONFIG_INVALID: a file cannot be read, others can read the key, or the two do not fit together. */
export async function readCertificate({ certPath, keyPath }: { readonly certPath: string; readonly keyPath: string }): Promise<OwnCertificate> {
  const refuse = (path: string, why: string, cause?: unknown): Fault => new Fault('CONFIG_INVALID', `${path}: ${why}`, { path, problems: [] }, cause);
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch((error: Error) => { throw refuse(path, `cannot be read: ${error.message}`, error); });
  const [cert, key] = [await read(certPath), await read(keyPath)];
  if (((await stat(keyPath)).mode & 0o077) !== 0) throw refuse(keyPath, 'others can read this key: chmod 0600');
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw refuse(certPath, `is no certificate for the key ${keyPath}: ${(error as Error).message}`, error);
  }
  return { key, cert };
}
