/** What a target would make of deltas: one raw file per disk, and how it is compared. Not a suite. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { CapturedDelta } from '../../../daemon/capture/capture.ts';

const zeroes = Buffer.alloc(1024 * 1024);

export class Replica {
  readonly #paths: string[];

  constructor(folder: string, diskCount: number) {
    this.#paths = Array.from({ length: diskCount }, (_, index) => join(folder, `replica${index}.raw`));
    for (const path of this.#paths) closeSync(openSync(path, 'w'));
  }

  path(disk: number): string { return this.#paths[disk]!; }

  async apply(delta: CapturedDelta): Promise<void> {
    const files = this.#paths.map((path) => openSync(path, 'r+'));
    const buffer = Buffer.alloc(1024 * 1024);
    try {
      for (const { disk, sizeBytes } of delta.disks) ftruncateSync(files[disk]!, sizeBytes);
      let bytes = 0;
      for (const run of delta.runs()) {
        bytes += run.length;
        if (run.kind === 'data') {
          await run.read(buffer, 0);
          writeSync(files[run.disk]!, buffer, 0, run.length, run.offset);
        } else {
          for (let done = 0; done < run.length; done += zeroes.length) writeSync(files[run.disk]!, zeroes, 0, Math.min(zeroes.length, run.length - done), run.offset + done);
        }
      }
      if (bytes !== delta.changedBytes) throw new Error(`runs of ${bytes} bytes, ${delta.changedBytes} were announced`);
    } finally {
      for (const file of files) closeSync(file);
    }
  }

  write(disk: number, offset: number, bytes: Buffer): void {
    const file = openSync(this.#paths[disk]!, 'r+');
    try {
      writeSync(file, bytes, 0, bytes.length, offset);
    } finally {
      closeSync(file);
    }
  }
}

/** Null when both hold the same bytes, else where they differ first and in how many bytes. */
export function difference(pathA: string, pathB: string): string | null {
  try {
    execFileSync('cmp', ['-s', pathA, pathB]);
    return null;
  } catch {
    const lines = execFileSync('sh', ['-c', 'cmp -l "$1" "$2" | head -n 100000 || true', 'sh', pathA, pathB], { maxBuffer: 1 << 28 }).toString().trim().split('\n');
    return `from byte ${Number.parseInt(lines[0] ?? '1', 10) - 1}, ${lines.length} bytes or more`;
  }
}
