/** A point server over points of plain files: two disks (one of an odd size), three points, the newest with a disk more. */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import type { Test } from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { makeCertificate, type OwnCertificate } from '../../journal/identity.ts';
import { startPointServer, type PointServer, type PointServerOptions } from '../../replica-target/points/point-server.ts';
import { pattern } from '../qemu/nbd-peers.ts';
import { shortFolder } from '../qemu/real-qemu.ts';
import { fileGroups, FilePoints, restorePoint } from './file-points.ts';

const MiB = 1024 * 1024;
/** Of the second disk: on no boundary at all but its sectors. */
export const oddBytes = 3 * MiB + 5 * 512;
export const diskBytes = 24 * MiB;

export interface PointSite {
  readonly folder: string;
  readonly server: PointServer;
  readonly points: FilePoints;
  readonly identity: OwnCertificate;
  /** Path of the plain copy of a disk at a point of term 1. */
  copy(point: number, disk: 0 | 1): string;
  uri(exportName: string): string;
  readonly logged: Record<string, unknown>[];
}

export async function startPointSite(t: Test, listen: PointServerOptions['listen'] = null): Promise<PointSite> {
  const folder = shortFolder(t);
  const points = new FilePoints();
  const copy = (point: number, disk: number): string => join(folder, `${point}-${disk}.raw`);
  for (const point of [1, 2, 3]) {
    makeDisk(copy(point, 0), point);
    writeFileSync(copy(point, 1), Buffer.concat([pattern(point * 1000, oddBytes - 512), Buffer.alloc(512, point)]));
    points.points.push({
      facts: restorePoint(1, point, Date.now() - (4 - point) * 60_000, point === 2 ? { kind: 'mark', label: 'before @ upgrade' } : {}),
      disks: [
        { disk: 0, name: 'vda', sizeBytes: diskBytes, path: copy(point, 0) },
        // A disk named with an @ and a slash, as device paths may be.
        ...(point === 1 ? [] : [{ disk: 1, name: 'bus/0@1', sizeBytes: oddBytes, path: copy(point, 1) }]),
      ],
    });
  }
  const identity = await makeCertificate('localhost');
  const socketPath = join(folder, 'nbd');
  const logged: Record<string, unknown>[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => { logged.push(JSON.parse(line) as Record<string, unknown>); } });
  const server = await startPointServer({ socketPath, listen }, { groups: fileGroups({ web: points }), clock: nodeClock, log, shown: () => identity });
  t.teardown(() => server.close());
  const uri = (exportName: string): string => `nbd+unix:///${exportName.split('/').map(encodeURIComponent).join('/')}?socket=${socketPath}`;
  return { folder, server, points, identity, copy, uri, logged };
}

/** Data, a hole, written zeroes, incompressible data that begins and ends off any power of two. */
function makeDisk(path: string, point: number): void {
  const file = openSync(path, 'w');
  writeSync(file, pattern(point, 3 * MiB), 0, 3 * MiB, 0);
  writeSync(file, Buffer.alloc(MiB), 0, MiB, 6 * MiB);
  writeSync(file, randomBytes(2 * MiB), 0, 2 * MiB, 9 * MiB + 1024 + 512 * point);
  writeSync(file, Buffer.alloc(512, point), 0, 512, diskBytes - 512);
  closeSync(file);
}
