/** The benchmark's end of the roles that it drives itself (driven-source.ts, plain-target.ts), and what passes between them. */
import { join } from 'node:path';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import type { WatchedTarget } from './seed-watch.ts';
import type { Running, Site } from './site.ts';

export interface SourceFacts { readonly qmpPath: string; readonly node: string; readonly spoolFolder: string; readonly token: string; readonly isTls: boolean }
export type SourceCommand = { readonly act: 'protect'; readonly name: string; readonly groupId: string } | { readonly act: 'cut' } | { readonly act: 'release' };
/** `waiting`: nothing happens until the next `cut`. */
export type SourceEvent = { readonly event: 'ready' | 'waiting' | 'acknowledged' | 'released' };

export interface TargetFacts { readonly groupsFolder: string }
export type TargetEvent = { readonly event: 'ready'; readonly token: string } | { readonly event: 'groups'; readonly groups: readonly GroupStoreReport[] };

export interface PointTargetFacts { readonly groupsFolder: string; readonly socketPath: string }
export type PointTargetEvent =
  | { readonly event: 'ready'; readonly openMs: number; readonly idleMs: number; readonly digestCount: number; readonly digestBytes: number; readonly fileCount: number; readonly historyBytes: number }
  | { readonly event: 'memory'; readonly rssBytes: number; readonly cacheBytes: number };

export interface DrivenSource {
  readonly running: Running;
  protect(name: string, groupId: string): void;
  /** The first point is there, and nothing happens by itself. */
  untilWaiting(): Promise<void>;
  /** Cuts; resolves when the point is acknowledged. */
  cut(): Promise<void>;
  /** Takes everything out of the guest; the target forgets the group. */
  release(): Promise<void>;
}

const answerMsMax = 300_000;

export async function startDrivenSource(site: Site, facts: Omit<SourceFacts, 'spoolFolder'>): Promise<DrivenSource> {
  const { running, hear } = startDriven<SourceEvent>(site, 'driven-source', { ...facts, spoolFolder: site.freshPath('spool') });
  const tell = (command: SourceCommand): void => void running.child.send(command);
  await hear('ready');
  return {
    running,
    protect: (name, groupId) => tell({ act: 'protect', name, groupId }),
    untilWaiting: async () => void (await hear('waiting')),
    async cut() {
      const done = hear('acknowledged');
      tell({ act: 'cut' });
      await done;
    },
    async release() {
      const done = hear('released');
      tell({ act: 'release' });
      await done;
    },
  };
}

export async function startPlainTarget(site: Site): Promise<WatchedTarget & { readonly token: string }> {
  const groupsFolder = join(site.freshPath('plain-target'), 'groups');
  const { running, hear } = startDriven<TargetEvent>(site, 'plain-target', { groupsFolder });
  const { token } = await hear('ready');
  return {
    running, groupsFolder, token,
    async groups() {
      const answer = hear('groups');
      running.child.send('groups');
      return (await answer).groups;
    },
  };
}

/** Serves the points of a group that is there, on a unix socket. */
export async function startPointTarget(site: Site, groupsFolder: string): Promise<{
  readonly running: Running; readonly socketPath: string;
  readonly ready: Extract<PointTargetEvent, { readonly event: 'ready' }>;
  memory(): Promise<Extract<PointTargetEvent, { readonly event: 'memory' }>>;
}> {
  const socketPath = site.freshPath('points-nbd');
  const { running, hear } = startDriven<PointTargetEvent>(site, 'point-target', { groupsFolder, socketPath });
  return {
    running, socketPath, ready: await hear('ready'),
    async memory() {
      const answer = hear('memory');
      running.child.send('memory');
      return answer;
    },
  };
}

/** `hear`: the next such event from the call on. */
function startDriven<E extends { readonly event: string }>(
  site: Site, script: 'driven-source' | 'plain-target' | 'point-target', facts: SourceFacts | TargetFacts | PointTargetFacts,
): { readonly running: Running; readonly hear: <K extends E['event']>(event: K) => Promise<Extract<E, { readonly event: K }>> } {
  const running = site.spawn(process.execPath, [join(import.meta.dirname, `${script}.js`), JSON.stringify(facts)], { name: script, hasIpc: true });
  const heard: ReturnType<typeof startDriven<E>>['hear'] = (event) => new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      clearTimeout(limit);
      running.child.off('message', onMessage);
      act();
    };
    const onMessage = (message: unknown): void => {
      if ((message as E).event === event) settle(() => resolve(message as Extract<E, { readonly event: typeof event }>));
    };
    const fail = (why: string): void => settle(() => reject(new Error(`${script}: ${why}: ${running.lastWords()}`)));
    const limit = setTimeout(() => fail(`no "${event}" within ${answerMsMax} ms`), answerMsMax);
    running.child.on('message', onMessage);
    void running.exited.then(() => fail('it ended'), (error: unknown) => fail(String(error)));
  });
  return {
    running,
    hear(event) {
      const hearing = heard(event);
      // Listened for from before it can happen, and awaited only later: what fails in between is not lost, and ends nothing.
      hearing.catch(() => undefined);
      return hearing;
    },
  };
}
