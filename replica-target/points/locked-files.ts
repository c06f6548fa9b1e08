/**
 * Keeps the immutable attribute on the files that locked points need (locked-files-plan.ts), where the disk can: so that not even root removes or changes one by mistake. It protects from
 * others; who may remove a file is decided elsewhere, and a disk that removes one for us takes its attribute off first. That files may bear it is durable before the first does: what a
 * crash left on a file that is not locked any more is taken off at the next look.
 */
import type { Logger } from 'pino';
import type { Disk } from '../../host/disk.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { segmentNumbers } from '../store/group-folder.ts';
import { errorCode } from '../store/store-fault.ts';
import type { GroupLocks } from './group-locks.ts';
import type { LockedFilesPlan } from './locked-files-plan.ts';

export interface LockedFilesOptions { readonly disk: Disk; readonly folder: GroupFolder; readonly locks: GroupLocks; readonly log: Logger | null }

export class LockedFiles {
  readonly #o: LockedFilesOptions;
  readonly #set = new Set<string>();
  #isHealed = false;
  #isImmutable: boolean | null = null;

  constructor(options: LockedFilesOptions) {
    this.#o = options;
  }

  /** Whether what is locked bears the attribute; false: this file system, or this user, cannot; null: it was not tried yet. */
  get isImmutable(): boolean | null { return this.#isImmutable; }

  /** Sets it on these and takes it off all others. */
  async bring(plan: LockedFilesPlan): Promise<void> {
    const { disk, folder, locks } = this.#o;
    if (disk.setImmutable === undefined) return;
    const wanted = new Set([...plan.undoNames.map((name) => folder.undo(name)), ...plan.segments.map((number) => folder.segment(number))]);
    if (!this.#isHealed && locks.isAttributed) for (const path of await this.#all()) if (!wanted.has(path)) await this.#change(path, false);
    this.#isHealed = true;
    for (const path of [...this.#set]) if (!wanted.has(path)) await this.#change(path, false);
    if (wanted.size === 0) return locks.attributed(false);
    await locks.attributed(true);
    for (const path of wanted) {
      // Where it cannot be had for one, it cannot for the next: tried again at the next look.
      if (!this.#set.has(path) && !await this.#change(path, true)) return;
    }
  }

  async #change(path: string, isImmutable: boolean): Promise<boolean> {
    try {
      const isDone = await this.#o.disk.setImmutable!(path, isImmutable);
      if (isImmutable) this.#tell(isDone);
      if (isImmutable && isDone) this.#set.add(path); else this.#set.delete(path);
      return isDone;
    } catch (error) {
      // Gone meanwhile: removed by whoever may.
      if (errorCode(error) !== 'ENOENT') throw error;
      this.#set.delete(path);
      return true;
    }
  }

  #tell(isDone: boolean): void {
    if (!isDone && this.#isImmutable !== false) this.#o.log?.warn({ path: this.#o.folder.path }, 'locked files cannot be made immutable here (the file system, or the rights of this user): they are kept by the target alone');
    this.#isImmutable = isDone;
  }

  async #all(): Promise<string[]> {
    const { disk, folder } = this.#o;
    return [...(await disk.list(folder.history)).map((name) => folder.undo(name)), ...segmentNumbers(await disk.list(folder.journal)).map((number) => folder.segment(number))];
  }
}
