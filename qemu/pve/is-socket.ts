/** Whether a file is there that a running QEMU made for a monitor. */
import { stat } from 'node:fs/promises';

export async function isSocket(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isSocket();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
