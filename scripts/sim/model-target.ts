/**
 * A target in the simulation: the real store, ingest and failover over a simulated disk, with guests that are models. The host outlives its target's process, and so do the
 * guests that run on it; a power cut ends them all and keeps of the disk what was synced, and any part of the rest.
 */
import { MemoryLevel } from 'memory-level';
import { pino } from 'pino';
import type { Disk } from '../../host/disk.ts';
import type { Witness } from '../../host/witness.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import { AutomaticFailovers } from '../../replica-target/failover/automatic.ts';
import { Claims } from '../../replica-target/failover/claims.ts';
import { Adoption } from '../../replica-target/failover/adoption.ts';
import type { FailoverHost } from '../../replica-target/failover/failover-host.ts';
import { failoverNote, type FailoverNote } from '../../replica-target/failover/failover-note.ts';
import { Failovers } from '../../replica-target/failover/failover.ts';
import { GroupTurns } from '../../replica-target/failover/group-turns.ts';
import type { TestFailovers } from '../../replica-target/failover/test-failover.ts';
import { Connection } from '../../replica-target/ingest/connection.ts';
import { sharedSecrets } from '../../replica-target/ingest/peers.ts';
import { SourceOrders } from '../../replica-target/ingest/source-orders.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { lifeDisk, type LyingSync } from './life-disk.ts';
import { diskBlocks, blockBytes, ModelQemu, type Truth } from './model-qemu.ts';
import { leaseTtlMs } from './model-source.ts';
import type { End } from './network.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { Life, type World } from './world.ts';

export const groupsFolder = '/groups';
const notesFolder = '/failovers';

export interface ModelTargetOptions {
  readonly world: World;
  readonly truth: Truth;
  readonly secret: Buffer;
  readonly fingerprint: string;
  /** Planted: syncs that are said to be done. */
  readonly isLying: LyingSync;
  /** Planted: the term is raised only after the guest runs. */
  readonly isTermLate: boolean;
  /** A guest that a failover started is about to run. */
  readonly onRun: (note: FailoverNote, qemu: ModelQemu) => void;
  readonly violate: (what: string) => void;
  /** Null: there is none. */
  readonly witness: ((life: Life) => Witness) | null;
}

export const storeOptions = { segmentBytes: 16 * 1024, journalKeepBytes: 24 * 1024, batchBytes: 8 * 1024 };

export class ModelTarget {
  readonly #o: ModelTargetOptions;
  disk = new SimulatedDisk();
  life: Life | null = null;
  registry: GroupRegistry | null = null;
  failovers: Failovers | null = null;
  /** By the path of its monitor. Survive the target's process. */
  readonly qemus = new Map<string, ModelQemu>();
  readonly #overlays = new Map<string, Buffer[]>();
  #orders: SourceOrders | null = null;
  readonly #bySource = new Map<string, Connection>();
  #pids = 1000;
  #late: (() => Promise<unknown>) | null = null;

  constructor(options: ModelTargetOptions) {
    this.#o = options;
  }

  get isUp(): boolean { return this.failovers !== null; }

  /** Resolves when it takes sources. */
  async start(): Promise<void> {
    const { world } = this.#o;
    const life = this.life = new Life(world);
    const files = lifeDisk(this.disk, life, this.#o.isLying, () => this.cutPower());
    const log = pino({ level: 'silent' });
    for (const folder of [groupsFolder, notesFolder]) await makeFolder(files, folder);
    const registry = await openRegistry({ disk: files, clock: life, folder: groupsFolder, catalog: () => new MemoryLevel<string, string>(), options: storeOptions });
    const orders = new SourceOrders(life);
    const tests = { isTesting: () => false, endForFailover: () => Promise.resolve() } as unknown as TestFailovers;
    const adoption = new Adoption({ localSource: null, pairing: { name: 'bravo', fingerprint: () => '', points: null, token: () => Promise.reject(new Error('not asked for')) }, clock: life, log });
    const { witness } = this.#o;
    const claims = witness === null ? null : new Claims({ witness: witness(life), ttlMs: leaseTtlMs, targetId: '22'.repeat(16), name: 'bravo', clock: life, log });
    const failovers: Failovers = new Failovers({
      failover: { accel: 'tcg', network: 'none', overlayFolder: '/overlays' }, keepFreeBytes: 0, host: this.#host(files, life), claims, stores: () => registry.groups(),
      pointsOf: (groupId) => registry.find(groupId)?.restorePoints ?? null, turns: new GroupTurns(), tests, orders, adoption, retire: () => Promise.resolve(), clock: life, log,
    });
    await failovers.open(registry.groups().map((store) => this.#planted(store)), (groupId) => this.#plantedOf(registry.find(groupId)));
    if (life.isOver) return;
    this.registry = registry;
    this.#orders = orders;
    this.failovers = failovers;
    if (claims !== null) {
      new AutomaticFailovers({
        groups: { web: { afterMs: 1000 } }, claims, stores: () => registry.groups().map((store) => this.#planted(store)), isConnected: (groupId) => orders.isPresent(groupId), isRunning: () => failovers.report().some(({ isRunning }) => isRunning), clock: life, log,
        failOver: async (group) => {
          world.log('a failover by itself');
          await failovers.failOver(this.store()!, { group });
          world.count('failovers by themselves');
        },
      }).start();
    }
    world.log('target up');
  }

  store(): GroupStore | null {
    return this.#plantedOf(this.registry?.groups()[0] ?? null);
  }

  accept(end: End): void {
    const { world, secret, fingerprint } = this.#o;
    const { life, registry } = this;
    const connection: Connection = new Connection({
      ws: end.ws, socket: end.socket, peer: 'alpha', registry: registry!, orders: this.#orders!, clock: life!, random: world.random, log: pino({ level: 'silent' }),
      facts: { targetId: '22'.repeat(16), targetName: 'bravo', fingerprint, shown: null }, peers: sharedSecrets(secret), limits: { heartbeatMs: 5000, silenceMs: 15_000 },
      onOpen: async (_opened, sourceId) => {
        const before = this.#bySource.get(sourceId);
        this.#bySource.set(sourceId, connection);
        before?.terminate();
        await before?.finished;
      },
      onFault: (code, _peer, message) => world.log(`target refuses: ${code} ${message}`),
    });
  }

  kill(): void {
    this.#o.world.log('target killed');
    this.#down();
    this.disk = this.disk.afterKill();
  }

  /** The guests that run there end with it. */
  cutPower(): void {
    const { world } = this.#o;
    if (this.life?.isOver !== false) return;
    world.log('power of the target cut');
    world.count('power cuts');
    this.#down();
    this.disk = this.disk.afterPowerCut(world.dice.integer(2 ** 31));
    for (const qemu of this.qemus.values()) qemu.kill();
    this.qemus.clear();
  }

  #down(): void {
    this.life?.end();
    this.#bySource.clear();
    this.registry = this.failovers = this.#orders = this.#late = null;
  }

  #plantedOf(store: GroupStore | null): GroupStore | null {
    return store === null ? null : this.#planted(store);
  }

  #planted(store: GroupStore): GroupStore {
    if (!this.#o.isTermLate) return store;
    return new Proxy(store, {
      get: (target, name) => {
        if (name === 'failOver') {
          return async () => {
            const { term } = target.report();
            const point = await target.drain();
            this.#late = () => target.failOver();
            return { term: term + 1, point: point! };
          };
        }
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) as unknown : value;
      },
    });
  }

  #host(files: Disk, life: Life): FailoverHost {
    const { world, truth, onRun, violate } = this.#o;
    const path = (groupId: string): string => `${notesFolder}/${groupId}.json`;
    let noted: FailoverNote | null = null;
    return {
      notes: async () => {
        const found: FailoverNote[] = [];
        for (const name of (await files.list(notesFolder)).filter((one) => one.endsWith('.json'))) found.push(failoverNote.parse(JSON.parse((await readWhole(files, `${notesFolder}/${name}`)).toString())));
        noted = found[0] ?? null;
        return found;
      },
      note: async (note) => {
        await replaceWhole(files, path(note.groupId), Buffer.from(JSON.stringify(note)));
        noted = note;
      },
      forget: async (groupId) => {
        if ((await files.list(notesFolder)).includes(`${groupId}.json`)) await files.remove(path(groupId));
        await files.syncFolder(notesFolder);
        noted = null;
      },
      removeFolder: (folder) => life.act(() => { this.#overlays.delete(folder); }),
      freeBytes: () => Promise.resolve(2 ** 40),
      accel: () => Promise.resolve('tcg'),
      images: async (store, note) => {
        if (this.#overlays.has(note.folder)) return [];
        const content = note.view === null ? await readReplica(files, store) : await readPoint(store, note);
        const expected = truth.get(formatPoint(note.point));
        if (expected === undefined) violate(`point ${formatPoint(note.point)} is booted and was never cut`);
        else if (content.some((bytes, disk) => !bytes.equals(expected[disk]!))) violate(`what is booted is not point ${formatPoint(note.point)}: ${difference(content, expected)}`);
        await life.act(() => { this.#overlays.set(note.folder, content); });
        return [];
      },
      launch: (guests) => life.act(() => guests.map((guest) => {
        if (guest.pid !== null) return guest;
        if (world.dice.chance(0.1)) throw new Fault('FAILOVER_BOOT', 'the model does not start');
        const folder = guest.folder;
        this.qemus.set(guest.qmpPath, new ModelQemu(this.#overlays.get(folder)!, 'prelaunch'));
        return { ...guest, pid: this.#pids++ };
      })),
      lookUp: (guests) => life.act(() => {
        const found = guests.map((guest) => ({ ...guest, pid: this.qemus.get(guest.qmpPath)?.isThere === true ? guest.pid ?? this.#pids++ : null }));
        return found.some(({ pid }, at) => pid !== guests[at]!.pid) ? found : guests;
      }),
      run: async (guests) => {
        for (const { qmpPath } of guests) {
          await life.act(() => {
            const qemu = this.qemus.get(qmpPath);
            if (qemu?.isThere !== true) throw new Fault('QMP_UNREACHABLE', 'there is no QEMU');
            if (qemu.state !== 'prelaunch') return;
            qemu.state = 'running';
            world.log(`the guest runs at the target, from ${formatPoint(noted!.point)} in term ${noted!.term}`);
            onRun(noted!, qemu);
          });
        }
        await this.#late?.();
        this.#late = null;
      },
      isWaiting: (guests) => life.act(() => guests.some(({ qmpPath }) => this.qemus.get(qmpPath)?.state === 'prelaunch')),
      awaitReady: () => Promise.resolve([]),
      stop: (guests) => life.act(() => { for (const { qmpPath } of guests) { this.qemus.get(qmpPath)?.kill(); this.qemus.delete(qmpPath); } }),
      isRunning: ({ qmpPath }) => this.qemus.get(qmpPath)?.isThere === true,
      hook: () => Promise.resolve(),
      hookAfter: () => Promise.resolve(),
      bringHome: ({ onHome, guests }) => {
        let isStopped = false;
        void life.delay(500 + world.dice.integer(2000)).then(async () => { if (!isStopped && guests.every(({ isRunning }) => isRunning())) await onHome(); });
        return { report: () => ({ state: 'streaming', doneBytes: 0, totalBytes: 0 }), stop: () => { isStopped = true; return Promise.resolve(); } };
      },
    };
  }
}

async function makeFolder(disk: Disk, path: string): Promise<void> {
  try {
    await disk.makeFolder(path);
    await disk.syncFolder('/');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

async function readWhole(disk: Disk, path: string): Promise<Buffer> {
  const file = await disk.open(path, 'read');
  const bytes = Buffer.alloc(await file.sizeBytes());
  await file.read(bytes, 0, bytes.length, 0);
  await file.close();
  return bytes;
}

/** As host/node/json-file.ts does it. */
async function replaceWhole(disk: Disk, path: string, bytes: Buffer): Promise<void> {
  const aside = `${path}.new`;
  try {
    await disk.remove(aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const file = await disk.open(aside, 'create');
  await file.write(bytes, 0);
  await file.sync();
  await file.close();
  await disk.rename(aside, path);
  await disk.syncFolder(path.slice(0, path.lastIndexOf('/')));
}

async function readReplica(disk: Disk, store: GroupStore): Promise<Buffer[]> {
  const contents: Buffer[] = [];
  for (const { replicaPath } of store.report().disks) contents.push(await readWhole(disk, replicaPath));
  return contents;
}

async function readPoint(store: GroupStore, { point }: FailoverNote): Promise<Buffer[]> {
  return readPointOf(store, point);
}

export async function readPointOf(store: GroupStore, point: { readonly term: number; readonly point: number }): Promise<Buffer[]> {
  const view = await store.restorePoints.open(point);
  try {
    const contents = diskBlocks.map((blocks) => Buffer.alloc(blocks * blockBytes));
    for (const [disk, bytes] of contents.entries()) await view.read(disk, 0, bytes);
    return contents;
  } finally {
    await view.release();
  }
}

/** The first block that differs, and which writes it holds in either. */
export function difference(found: readonly Buffer[], expected: readonly Buffer[]): string {
  for (const [disk, bytes] of expected.entries()) {
    const at = bytes.findIndex((byte, offset) => byte !== found[disk]![offset]);
    if (at >= 0) {
      const from = at - (at % blockBytes);
      return `disk ${disk}, block ${from / blockBytes} holds write ${found[disk]!.readUInt32LE(from)}, expected ${bytes.readUInt32LE(from)}`;
    }
  }
  return 'nothing';
}
