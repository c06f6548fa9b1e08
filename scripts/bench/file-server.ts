/** The peers' far end: a raw file behind qemu-nbd, with the same name of export as the stand-in. */
import { existsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { exportName, uriOf } from './stand-in.ts';
import { until, type Site } from './site.ts';

export interface FileServer {
  readonly pid: number;
  readonly path: string;
  readonly socketPath: string;
  readonly uri: string;
  /** Ends it and removes its file. */
  end(): Promise<void>;
}

export async function startFileServer(site: Site, sizeBytes: number): Promise<FileServer> {
  const path = site.freshPath('peer');
  const socketPath = site.freshPath('nbd');
  const file = await open(path, 'wx');
  await file.truncate(sizeBytes);
  await file.close();
  // Any number of connections, so that nbdcopy may use as many as it likes.
  const running = site.spawn('qemu-nbd', ['--persistent', '--shared=0', '--format=raw', '--discard=unmap', '--cache=writeback', `--export-name=${exportName}`, `--socket=${socketPath}`, path]);
  await until('qemu-nbd makes its socket', () => existsSync(socketPath), { running });
  return {
    pid: running.pid, path, socketPath, uri: uriOf(socketPath),
    async end() {
      await running.end();
      await rm(path);
      await rm(socketPath, { force: true });
    },
  };
}
