/** Where the files of a group lie, and how they are named. Only names: nothing is opened here. */
import { join } from 'node:path';
import type { PointId } from '../../journal/point.ts';

export class GroupFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  get facts(): string { return join(this.path, 'group.json'); }
  get mark(): string { return join(this.path, 'mark.json'); }
  get journal(): string { return join(this.path, 'journal'); }
  get replica(): string { return join(this.path, 'replica'); }
  get history(): string { return join(this.path, 'history'); }
  /** Up to where history was given up. */
  get pruned(): string { return join(this.path, 'pruned.json'); }
  /** When the stored bytes were last checked, and what was found. */
  get scrub(): string { return join(this.path, 'scrub.json'); }
  /** What points changed, and what is suspected for it. */
  get suspicion(): string { return join(this.path, 'suspicion.json'); }
  get holds(): string { return join(this.path, 'holds.json'); }
  /** What time has passed for locks, and what a policy locked. */
  get locks(): string { return join(this.path, 'locks.json'); }
  get catalog(): string { return join(this.path, 'catalog'); }
  get folders(): readonly string[] { return [this.journal, this.replica, this.history]; }

  segment(number: number): string { return join(this.journal, `${String(number).padStart(6, '0')}.seg`); }
  image(disk: number): string { return join(this.replica, `${disk}.raw`); }
  /** Checksums of the image's blocks, as the last pass over it found them. */
  sums(disk: number): string { return join(this.replica, `${disk}.sums`); }
  undo(name: string): string { return join(this.history, name); }
}

const segmentName = /^(\d{6,})\.seg$/;
const undoName = /^(\d+)\.(\d+)-(\d+)\.(\d+)\.undo$/;

/** Of the names in a journal folder, the numbers of its segments, ascending. */
export function segmentNumbers(names: readonly string[]): number[] {
  return names.flatMap((name) => { const found = segmentName.exec(name); return found === null ? [] : [Number(found[1])]; }).sort((a, b) => a - b);
}

/** `from` null, the replica before its first point, is written 0.0. */
export function undoFileName(from: PointId | null, to: PointId): string {
  return `${from?.term ?? 0}.${from?.point ?? 0}-${to.term}.${to.point}.undo`;
}

export function parseUndoName(name: string): { readonly from: PointId | null; readonly to: PointId } | null {
  const found = undoName.exec(name);
  if (found === null) return null;
  const from = { term: Number(found[1]), point: Number(found[2]) };
  return { from: from.term === 0 ? null : from, to: { term: Number(found[3]), point: Number(found[4]) } };
}
