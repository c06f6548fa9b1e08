/** The loads of the benchmark "ransomware" (the script `loads` beside this file), and what is expected of each. */

export interface Scenario {
  readonly load: string;
  /** `blind`: by content alone it is what an attack is; stated, and counted as neither hit nor false alarm. */
  readonly kind: 'attack' | 'honest' | 'blind';
  readonly what: string;
  /** On a disk whose free space still holds what deleted files held. */
  readonly isUsedDisk: boolean;
  /** By these the limits were chosen; none was moved for the others. */
  readonly isTuning: boolean;
}

const scenario = (kind: Scenario['kind'], load: string, what: string, { isUsedDisk = false, isTuning = false } = {}): Scenario => ({ kind, load, what, isUsedDisk, isTuning });

export const scenarios: readonly Scenario[] = [
  scenario('attack', 'in-place', 'files encrypted in place, whole', { isTuning: true }),
  scenario('attack', 'in-place-busy', 'the same beside a database at work', { isUsedDisk: true, isTuning: true }),
  scenario('attack', 'rename-in-place', 'in place, then renamed', { isUsedDisk: true }),
  scenario('attack', 'slow-in-place', 'in place, five files a second', { isUsedDisk: true }),
  scenario('attack', 'first-block', 'the first 4 KiB of each file', { isTuning: true }),
  scenario('attack', 'every-16th', 'every 16th block of each file'),
  scenario('attack', 'new-and-delete', 'written anew into blank space, the old file deleted, no discard', { isTuning: true }),
  scenario('attack', 'new-and-delete-aged', 'the same into space that held other files', { isUsedDisk: true }),
  scenario('attack', 'new-and-delete-discard', 'written anew into blank space, the old file deleted and discarded'),
  scenario('honest', 'unpack-text', 'archives of text unpacked', { isTuning: true }),
  scenario('honest', 'unpack-media', 'images, fonts and zip files unpacked into blank space'),
  scenario('honest', 'unpack-media-aged', 'the same into space that held other files', { isUsedDisk: true, isTuning: true }),
  scenario('honest', 'packages', 'packages copied and unpacked over the tree', { isUsedDisk: true }),
  scenario('honest', 'packages-again', 'packages unpacked twice over the tree'),
  scenario('honest', 'database', 'a database at work', { isUsedDisk: true }),
  scenario('honest', 'rotate-logs', 'logs rotated and compressed', { isUsedDisk: true }),
  scenario('honest', 'dump-gzip-aged', 'a database and files dumped, by gzip', { isUsedDisk: true, isTuning: true }),
  scenario('honest', 'commit-aged', 'files copied and added to a git repository: thousands of small compressed ones', { isUsedDisk: true }),
  scenario('honest', 'dump-zstd-aged', 'files dumped, by zstd', { isUsedDisk: true }),
  scenario('honest', 'dump-xz-aged', 'files dumped, by xz', { isUsedDisk: true }),
  scenario('honest', 'move-files', 'files copied and moved', { isUsedDisk: true }),
  scenario('honest', 'defragment', 'files defragmented'),
  scenario('honest', 'recompress-in-place', 'files compressed one by one, the old ones deleted', { isUsedDisk: true }),
  scenario('blind', 'encrypted-backup-aged', 'an encrypted backup written into space that held other files', { isUsedDisk: true }),
];
