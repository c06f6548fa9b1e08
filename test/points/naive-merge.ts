/** Merges neighbouring history files sector by sector, in memory: the slow, plain way, for the view's oracle. */
import type { Disk } from '../../host/disk.ts';
import type { HistoryFile } from '../../replica-target/points/history-set.ts';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import { HistoryReader } from '../../replica-target/store/history-reader.ts';
import { HistoryWriter } from '../../replica-target/store/history-writer.ts';
import { folder } from '../store/store-rig.ts';

const sector = 512;

/** False when the run may not be merged (any more); then nothing is left of the try. */
export async function naiveMerge(disk: Disk, store: FileGroupStore, run: readonly HistoryFile[]): Promise<boolean> {
  if (!store.history.mayReplace(run, false)) return false;
  const sectors = new Map<number, Map<number, Buffer | null>>();
  const facts = [];
  for (const file of run) {
    const reader = await HistoryReader.open(disk, folder, file.name);
    facts.push(reader.facts);
    for (let index = 0; index < reader.count; index++) {
      const entry = reader.entry(index);
      const bytes = await reader.run(entry);
      let ofDisk = sectors.get(entry.disk);
      if (ofDisk === undefined) sectors.set(entry.disk, ofDisk = new Map());
      for (let at = 0; at < entry.length; at += sector) {
        if (!ofDisk.has(entry.offset + at)) ofDisk.set(entry.offset + at, bytes?.subarray(at, at + sector) ?? null);
      }
    }
    await reader.close();
  }
  const [first, last] = [facts[0]!, facts.at(-1)!];
  const writer = await HistoryWriter.begin(disk, folder, { ...first, to: last.to, disksAfter: last.disksAfter, points: last.points.slice(-1) });
  for (const [index, ofDisk] of [...sectors].sort((a, b) => a[0] - b[0])) {
    for (const [offset, bytes] of [...ofDisk].sort((a, b) => a[0] - b[0])) {
      if (bytes === null) { await writer.zero(index, offset, sector); continue; }
      bytes.copy(await writer.room(sector));
      writer.data(index, offset, sector);
    }
  }
  const sealed = await writer.seal();
  const merged = { ...sealed, from: first.from, to: last.to };
  if (await store.history.replace(run, merged)) return true;
  await disk.remove(folder.undo(merged.name));
  return false;
}
