/** A folder that stands for `/` of a host with Proxmox VE: its config, one storage of type `dir`, and a stand-in for `qm` (qm.mjs). Every QEMU in it is ended with the test. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { buildLabGuest } from '../../../scripts/lab/lab-guest.ts';

const run = promisify(execFile);

export interface PveHost {
  readonly root: string;
  /** The stand-in's command line, without what it is to do. */
  readonly command: readonly string[];
  readonly configFolder: string;
  /** Of the storage `afterimage`. */
  readonly imageFolder: string;
  /** Standard output of the stand-in. */
  qm(...args: string[]): Promise<string>;
  writeConfig(vmid: number, text: string): Promise<void>;
  /** Null: there is none. */
  readConfig(vmid: number): Promise<string | null>;
}

/** `append`: what its guests do (scripts/lab/guest/init). They have no boot loader: their kernel is given to QEMU. */
export async function makePveHost(t: { teardown(end: () => Promise<void>): unknown }, append: string): Promise<PveHost> {
  // Its sockets' paths must stay below 108 bytes.
  const root = await mkdtemp(join(tmpdir(), 'af-pve-'));
  t.teardown(async () => {
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (/^[^\0]*qemu-system/.test(command) && command.includes(`${root}/`)) process.kill(pid, 'SIGKILL');
    }
    await rm(root, { recursive: true, force: true });
  });
  const configFolder = join(root, 'etc/pve/qemu-server');
  const imageFolder = join(root, 'srv/vz/images');
  for (const folder of [configFolder, imageFolder, join(root, 'var/run/qemu-server')]) await mkdir(folder, { recursive: true });
  await writeFile(join(root, 'etc/pve/storage.cfg'), 'dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n\ndir: afterimage\n\tpath /srv/vz\n\tcontent images\n\tprune-backups keep-all=1\n');
  const { kernel, initrd } = await buildLabGuest();
  const command = [process.execPath, fileURLToPath(new URL('qm.mjs', import.meta.url)), '--root', root, '--kernel', kernel, '--initrd', initrd, '--append', `console=ttyS0 quiet no_timer_check ${append}`];
  const configPath = (vmid: number): string => join(configFolder, `${vmid}.conf`);
  return {
    root, command, configFolder, imageFolder,
    qm: async (...args) => (await run(command[0]!, [...command.slice(1), ...args])).stdout,
    writeConfig: (vmid, text) => writeFile(configPath(vmid), text),
    readConfig: (vmid) => readFile(configPath(vmid), 'utf8').catch((error: NodeJS.ErrnoException) => { if (error.code !== 'ENOENT') throw error; return null; }),
  };
}
