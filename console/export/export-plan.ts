/**
 * How an export is named, and what qemu-img is told: pure. A whole export is one folder, `GUEST-POINT-FORMAT`, with an image for
 * each disk and `export.json`; while it is being written the folder's name ends in `.part`. Images have their last name from the
 * beginning, as some formats write their own name into themselves.
 */
import { formatPoint } from '../../journal/point.ts';
import type { PointDescription } from '../../replica-target/points/point-desk.ts';

export const exportFormats = ['raw', 'qcow2', 'vmdk', 'vhdx', 'vdi'] as const;
export type ExportFormat = (typeof exportFormats)[number];

/** Longer than a target takes to be back after it was killed. */
const reconnectSeconds = 300;
const fileNameLengthMax = 100;

export interface ExportedDisk {
  readonly disk: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly exportName: string;
  /** Within the export's folder. */
  readonly fileName: string;
}

export interface ExportPlan {
  /** Of the folder. */
  readonly name: string;
  readonly disks: readonly ExportedDisk[];
}

export function planExport({ group, point, disks }: PointDescription, format: ExportFormat): ExportPlan {
  const planned: ExportedDisk[] = [];
  // Some file systems do not tell capitals apart.
  const isTaken = (stem: string): boolean => planned.some(({ fileName }) => fileName.toLowerCase() === `${stem}.${format}`.toLowerCase());
  for (const { disk, name, sizeBytes, exportName } of disks) {
    // A disk may be named by a path within QEMU, and two may differ in nothing but what a file name cannot hold.
    const plain = name.replace(/[^\w.-]+/g, '_').replace(/^[._]+/, '').slice(0, fileNameLengthMax);
    const aside = `disk${disk}${plain === '' ? '' : `-${plain}`}`;
    let stem = plain === '' || isTaken(plain) ? aside : plain;
    // One may be named as another one's stand-in.
    for (let count = 2; isTaken(stem); count += 1) stem = `${aside}-${count}`;
    planned.push({ disk, name, sizeBytes, exportName, fileName: `${stem}.${format}` });
  }
  return { name: `${group}-${formatPoint(point)}-${format}`, disks: planned };
}

/** For qemu-img: a restart of the target in the middle is waited for. */
export function nbdSource(socketPath: string, exportName: string): string {
  return `json:${JSON.stringify({ driver: 'raw', file: { driver: 'nbd', server: { type: 'unix', path: socketPath }, export: exportName, 'reconnect-delay': reconnectSeconds } })}`;
}

/** For all other tools, as the NBD project's doc/uri.md has it. */
export function nbdUri(socketPath: string, exportName: string): string {
  return `nbd+unix:///${encodedName(exportName)}?socket=${encodeURIComponent(socketPath)}`;
}

/** Where clients find a server that listens on any address: under the host that sources are told. Both are host:port. */
export function reachableAddress(listening: string, advertised: string): string {
  const colon = listening.lastIndexOf(':');
  const isAny = ['0.0.0.0', '[::]'].includes(listening.slice(0, colon));
  return isAny ? `${advertised.slice(0, advertised.lastIndexOf(':'))}${listening.slice(colon)}` : listening;
}

/** With TLS. Which key or certificate the client shows is for it to say. */
export function nbdsUri(address: string, exportName: string): string {
  return `nbds://${address}/${encodedName(exportName)}`;
}

function encodedName(exportName: string): string {
  return exportName.split('/').map((part) => encodeURIComponent(part).replaceAll('%40', '@')).join('/');
}

export function convertArguments(source: string, format: ExportFormat, path: string): readonly string[] {
  // Written through the page cache and synced afterwards: qemu-img's own default promises nothing.
  return ['convert', '-p', '-t', 'writeback', '-O', format, source, path];
}

export function compareArguments(source: string, format: ExportFormat, path: string): readonly string[] {
  return ['compare', '-p', '-f', format, path, source];
}

/** The last progress in what qemu-img has printed, 0 to 1; null when there is none. */
export function progressIn(text: string): number | null {
  const found = [...text.matchAll(/\((\d{1,3}(?:\.\d+)?)\/100%\)/g)].at(-1);
  return found === undefined ? null : Math.min(1, Number(found[1]) / 100);
}

/** Beside the images: what they are, for people and programs. Members are added, never changed. */
export function exportFacts({ group, groupId, point, hardware }: PointDescription, format: ExportFormat, plan: ExportPlan, exportedAtMs: number): Readonly<Record<string, unknown>> {
  return {
    version: 1, group, groupId, format, exportedAt: new Date(exportedAtMs).toISOString(),
    point: { id: formatPoint(point), term: point.term, point: point.point, kind: point.kind, label: point.label ?? null, cutAt: new Date(point.cutAtMs).toISOString(), cutAtMs: point.cutAtMs },
    disks: plan.disks.map(({ disk, name, sizeBytes, fileName }) => ({ disk, name, sizeBytes, fileName })),
    hardware,
  };
}
