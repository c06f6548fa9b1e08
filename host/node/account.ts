/** Users of this host, as its name service has them (nsswitch.conf(5)): files, and whatever else is configured. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** A directory service that does not answer is not waited for longer, ms. */
const answerMsMax = 10_000;

/** `user`: name or number. Null: there is none. */
export async function findAccount(user: string): Promise<{ readonly uid: number; readonly gid: number } | null> {
  try {
    const { stdout } = await promisify(execFile)('getent', ['passwd', user], { timeout: answerMsMax });
    const [, , uid, gid] = stdout.trim().split(':');
    return { uid: Number(uid), gid: Number(gid) };
  } catch (error) {
    // getent(1): "One or more supplied keys could not be found in the database."
    if ((error as { code?: unknown }).code === 2) return null;
    throw error;
  }
}
