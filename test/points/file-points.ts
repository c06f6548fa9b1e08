/** A group's points as plain files, one for each disk of each point: what the exports are tried with, byte for byte, apart from how views are made. */
import { open, type FileHandle } from 'node:fs/promises';
import { Fault } from '../../journal/fault.ts';
import { formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { ExportedGroup, ExportedGroups } from '../../replica-target/points/nbd-exports.ts';
import type { GroupPoints, Hold, PointView, RestorePoint, ViewDisk, ViewExtent } from '../../replica-target/points/points.ts';

export interface FilePoint { readonly facts: RestorePoint; readonly disks: readonly (ViewDisk & { readonly path: string })[] }

const blockBytes = 4096;

class FileView implements PointView {
  readonly point: PointId;
  readonly disks: readonly ViewDisk[];
  readonly #files: ReadonlyMap<number, FileHandle>;
  isReleased = false;

  constructor(point: PointId, disks: readonly ViewDisk[], files: ReadonlyMap<number, FileHandle>) {
    this.point = point;
    this.disks = disks;
    this.#files = files;
  }

  async read(disk: number, offset: number, into: Buffer): Promise<void> {
    if (this.isReleased) throw new Error('read after release');
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await this.#files.get(disk)!.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) throw new Fault('STORE_CORRUPT', 'the file is too short');
      done += bytesRead;
    }
  }

  async extents(disk: number, offset: number, length: number, countMax: number): Promise<readonly ViewExtent[]> {
    const found: { length: number; isZero: boolean }[] = [];
    const block = Buffer.alloc(blockBytes);
    for (let at = offset; at < offset + length;) {
      const end = Math.min(offset + length, at - (at % blockBytes) + blockBytes);
      const piece = block.subarray(0, end - at);
      await this.read(disk, at, piece);
      const isZero = piece.every((byte) => byte === 0);
      if (found.at(-1)?.isZero === isZero) found.at(-1)!.length += end - at;
      else if (found.length === countMax) break;
      else found.push({ length: end - at, isZero });
      at = end;
    }
    return found;
  }

  async release(): Promise<void> {
    if (this.isReleased) throw new Error('released twice');
    this.isReleased = true;
    for (const file of this.#files.values()) await file.close();
  }
}

export class FilePoints implements GroupPoints {
  readonly points: FilePoint[] = [];
  openedCount = 0;
  readonly views: FileView[] = [];

  get openViewCount(): number { return this.views.filter(({ isReleased }) => !isReleased).length; }

  async list(): Promise<readonly RestorePoint[]> {
    return this.points.map(({ facts }) => facts);
  }

  async find(id: PointId): Promise<RestorePoint | null> {
    return (await this.list()).find((point) => isSamePoint(point, id)) ?? null;
  }

  changedSince(): Promise<never> { return Promise.reject(new Error('not asked for')); }
  async open(id: PointId): Promise<PointView> {
    const point = this.points.find(({ facts }) => isSamePoint(facts, id));
    if (point === undefined) throw new Fault('POINT_UNKNOWN', `no point ${formatPoint(id)}`);
    this.openedCount += 1;
    const files = new Map<number, FileHandle>();
    for (const { disk, path } of point.disks) files.set(disk, await open(path, 'r'));
    const view = new FileView(id, point.disks.map(({ disk, name, sizeBytes }) => ({ disk, name, sizeBytes })), files);
    this.views.push(view);
    return view;
  }

  lock(): Promise<Hold> { throw new Error('not here'); }
  hold(): Promise<Hold> { throw new Error('not here'); }
  release(): Promise<void> { throw new Error('not here'); }
  holds(): readonly Hold[] { return []; }
}

export function fileGroups(groups: Readonly<Record<string, FilePoints>>): ExportedGroups {
  const all: ExportedGroup[] = Object.entries(groups).map(([name, points]) => ({ groupId: name, name, points }));
  return { all: () => all, find: (name) => all.find((group) => group.name === name) ?? null };
}

export function restorePoint(term: number, point: number, cutAtMs: number, more: Partial<RestorePoint> = {}): RestorePoint {
  return { term, point, kind: 'crash', cutAtMs, arrivedAtMs: cutAtMs + 100, changedBytes: 4096, isApplied: true, isHeld: false, keptBy: 'all', ...more };
}
