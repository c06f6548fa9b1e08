/** A lab guest that ends with its test, whatever becomes of the test. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { startLabGuest as start, type LabGuest, type LabGuestOptions } from '../../scripts/lab/lab-guest.ts';

const run = promisify(execFile);

export async function startLabGuest(t: { teardown(end: () => Promise<void>): unknown }, options: LabGuestOptions): Promise<LabGuest> {
  const guest = await start(options);
  t.teardown(() => guest.kill());
  return guest;
}

/** An empty disk image. */
export async function createLabDisk(path: string, format: 'raw' | 'qcow2', sizeBytes: number): Promise<string> {
  await run('qemu-img', ['create', '-q', '-f', format, path, String(sizeBytes)]);
  return path;
}
