/**
 * Notices when a target holds a whole replica durably, without taking processor time from those who are measured: the group's
 * facts file is looked at (a stat), and only after it was replaced, or now and then, the target is asked. Its answer counts.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { GroupFolder } from '../../replica-target/store/group-folder.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import type { Running } from './site.ts';

export interface WatchedTarget {
  readonly groupsFolder: string;
  readonly running: Running;
  groups(): Promise<readonly GroupStoreReport[]>;
}

const lookMs = 4;
/** The file has its new name a moment before the target takes the change for durable. */
const freshMs = 100;
/** Should the facts be kept elsewhere one day, this is only less exact. */
const askMs = 250;
const limitMs = 600_000;

/** Returns the group as the target reports it. */
export async function untilSeeded({ groupsFolder, running, groups }: WatchedTarget, groupId: string): Promise<GroupStoreReport> {
  const { facts } = new GroupFolder(join(groupsFolder, groupId));
  const endMs = performance.now() + limitMs;
  let seen: number | undefined;
  let changedMs = 0;
  let askedMs = 0;
  for (;;) {
    const found = statSync(facts, { throwIfNoEntry: false })?.ino;
    const nowMs = performance.now();
    if (found !== seen) changedMs = nowMs;
    seen = found;
    if (nowMs - changedMs < freshMs || nowMs - askedMs > askMs) {
      askedMs = nowMs;
      const group = (await groups()).find((one) => one.groupId === groupId);
      if (group?.seed === 'done') return group;
    }
    if (running.isGone) throw new Error(`the target ended: ${running.lastWords()}`);
    if (nowMs > endMs) throw new Error(`no whole replica within ${limitMs} ms: ${running.lastWords()}`);
    await delay(lookMs);
  }
}
