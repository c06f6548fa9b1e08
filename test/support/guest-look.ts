/** What tests see of a guest's QEMU through a QMP socket of their own, and how they compare its disks with replicas. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';

const run = promisify(execFile);

export async function withQmp<T>(path: string, act: (qmp: QmpConnection) => Promise<T>): Promise<T> {
  const qmp = await connectQmp(path);
  try {
    return await act(qmp);
  } finally {
    qmp.close();
  }
}

/** Everything in QEMU that bears our name: nodes, bitmaps, jobs, exports. */
export function ourObjects(path: string): Promise<string[]> {
  return withQmp(path, async (qmp) => {
    const nodes = await qmp.execute<{ 'node-name': string; 'dirty-bitmaps'?: { name?: string }[] }[]>('query-named-block-nodes', { flat: true });
    const jobs = await qmp.execute<{ id: string }[]>('query-jobs');
    const exports = await qmp.execute<{ id: string }[]>('query-block-exports');
    return [
      ...nodes.map((node) => `node ${node['node-name']}`),
      ...nodes.flatMap((node) => (node['dirty-bitmaps'] ?? []).map((bitmap) => `bitmap ${bitmap.name ?? ''}`)),
      ...jobs.map(({ id }) => `job ${id}`),
      ...exports.map(({ id }) => `export ${id}`),
    ].filter((line) => line.includes('afterimage'));
  });
}

/** Null when the image holds the same bytes as the raw file, else what differs in qemu-img's words. */
export async function imageDifference(imagePath: string, format: 'raw' | 'qcow2', rawPath: string): Promise<string | null> {
  try {
    await run('qemu-img', ['compare', '-U', '-f', format, '-F', 'raw', imagePath, rawPath]);
    return null;
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: number; stdout?: string; stderr?: string };
    if (code !== 1) throw error;
    return `${stdout ?? ''}${stderr ?? ''}`;
  }
}
