/**
 * Certificates, a key and authorities of the operator's own, as files that the config names: read, and checked to be what they
 * are said to be. The key must be its owner's alone. Who is taken by them is not decided here.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { Fault } from '../../journal/fault.ts';
import type { OwnCertificate } from '../../journal/identity.ts';

/** Absolute paths of PEM files. */
export interface TlsPaths {
  /** The other side's certificate must have been issued by one of these. Absent: it stands for itself. */
  readonly ca?: string | undefined;
  /** In place of one that the daemon makes itself; both or none. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** Null for what is not named. Fault CONFIG_INVALID. */
export async function readTlsFiles({ ca, cert, key }: TlsPaths): Promise<{ readonly ca: string | null; readonly own: OwnCertificate | null }> {
  const authorities = ca === undefined ? null : await readPem(ca, false);
  if (authorities !== null) checkCertificate(ca!, authorities);
  if (cert === undefined || key === undefined) return { ca: authorities, own: null };
  const own = { cert: await readPem(cert, false), key: await readPem(key, true) };
  const certificate = checkCertificate(cert, own.cert);
  try {
    if (certificate.checkPrivateKey(createPrivateKey(own.key))) return { ca: authorities, own };
  } catch (error) {
    throw new Fault('CONFIG_INVALID', `${key} holds no private key in PEM without a password`, { path: key }, error);
  }
  throw new Fault('CONFIG_INVALID', `the key in ${key} is not that of the certificate in ${cert}`, { path: key });
}

async function readPem(path: string, isSecret: boolean): Promise<string> {
  try {
    const { mode } = await stat(path);
    if (isSecret && (mode & 0o077) !== 0) throw new Fault('CONFIG_INVALID', `${path} is readable by others (mode ${(mode & 0o777).toString(8)}); it holds a key and must be 600`, { path });
    return await readFile(path, 'utf8');
  } catch (error) {
    throw error instanceof Fault ? error : new Fault('CONFIG_INVALID', `${path} cannot be read: ${(error as Error).message}`, { path }, error);
  }
}

function checkCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw new Fault('CONFIG_INVALID', `${path} holds no certificate in PEM`, { path }, error);
  }
}
