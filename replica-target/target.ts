/**
 * The target role put together: state, store, ingest, failovers. It answers the operator (operations.ts) and makes the one
 * report; what arrives goes from ingest to the store without passing here.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { AuditNoter } from '../host/audit-trail.ts';
import { nodeClock } from '../host/node/clock.ts';
import { nodeDisk } from '../host/node/disk.ts';
import { openWitness } from '../host/node/etcd-witness.ts';
import { nodeRandom } from '../host/node/random.ts';
import { readTlsFiles } from '../host/node/tls-files.ts';
import { Fault } from '../journal/fault.ts';
import { formatPoint, type PointId } from '../journal/point.ts';
import { targetAlarms } from './alarms-plan.ts';
import { Adoption } from './failover/adoption.ts';
import { nodeFailoverHost } from './failover/failover-host.ts';
import { AutomaticFailovers } from './failover/automatic.ts';
import { Claims } from './failover/claims.ts';
import { Failovers } from './failover/failover.ts';
import { lookAtGuest, shownGuest, type ShownGuest } from './failover/guest-look.ts';
import { GroupTurns } from './failover/group-turns.ts';
import { checkStart } from './failover/start-check.ts';
import { checkEveryMsDefault, StartWatch } from './failover/start-check-watch.ts';
import { explained } from './failover/start-explained.ts';
import { refuseToMove } from './failover/refuse-to-move.ts';
import type { StartReport } from './failover/start-finding.ts';
import { chooseAccel } from './failover/guest-launch.ts';
import { planManagedGroup } from './failover/managed-launch.ts';
import { planNetwork } from './failover/network-plan.ts';
import { planRunbook, type Runbook } from './failover/runbook-plan.ts';
import { choosePoint } from './points/point-selector.ts';
import type { DiskChanges } from './points/points.ts';
import { readGroupHardware } from '../qemu/group-hardware.ts';
import { Rehearsals, type RehearsalRequest } from './failover/rehearsal.ts';
import type { RehearsalReport } from './failover/rehearsal-report.ts';
import { TestFailovers } from './failover/test-failover.ts';
import { SourceOrders } from './ingest/source-orders.ts';
import { SourceVolumes } from './ingest/source-volumes.ts';
import { listenIngest, type Ingest } from './ingest/server.ts';
import type { FailoverRequest, FailoverResult, PlanRequest, LocalSource, RunningTarget, StartRequest, SurrenderedImages, TargetDeps, TargetOperations, TargetOptions, TestRequest, TestResult } from './operations.ts';
import { OwnCertificates } from './pairing/own-certificates.ts';
import { SourcePairings } from './pairing/source-pairings.ts';
import { TargetPairing, type Invitation, type InvitationRequest, type RotationReport, type TargetPairingsReport } from './pairing/target-pairing.ts';
import type { ExportedGroup } from './points/nbd-exports.ts';
import { PointDesk, type GroupTimeline, type HeldPoint, type HoldRequest, type LockedPoint, type LockRequest, type PointDescription } from './points/point-desk.ts';
import { startPointServer, type PointServer } from './points/point-server.ts';
import { defaultScrub, Scrub, type ScrubbedGroup } from './points/scrub.ts';
import type { Verification } from './points/verify.ts';
import type { TargetReport } from './report.ts';
import { defaultRetention } from './points/retention-plan.ts';
import { openRegistry } from './store/registry.ts';
import type { GroupRegistry, GroupStore, StoredPoint } from './store/store.ts';
import { VolumeWatch } from './store/volume-watch.ts';
import type { SuspicionFlag } from './suspicion/group-suspicion.ts';
import { defaultSuspicion } from './suspicion/suspicion-plan.ts';
import { TargetState } from './target-state.ts';

interface TargetParts {
  readonly pairing: TargetPairing;
  readonly failovers: Failovers;
  readonly tests: TestFailovers;
  readonly rehearsals: Rehearsals;
  readonly claims: Claims | null;
  readonly automatic: AutomaticFailovers | null;
  readonly registry: GroupRegistry;
  readonly pointServer: PointServer;
  readonly ingest: Ingest;
  readonly certificate: RunningTarget['certificate'];
  readonly orders: SourceOrders;
  readonly volumes: SourceVolumes;
}

class Target implements TargetOperations {
  readonly certificate: RunningTarget['certificate'];
  readonly #options: TargetOptions;
  readonly #deps: TargetDeps;
  readonly #pairing: TargetPairing;
  readonly #failovers: Failovers;
  readonly #tests: TestFailovers;
  readonly #rehearsals: Rehearsals;
  readonly #claims: Claims | null;
  readonly #automatic: AutomaticFailovers | null;
  readonly #registry: GroupRegistry;
  readonly #pointServer: PointServer;
  readonly #ingest: Ingest;
  readonly #orders: SourceOrders;
  readonly #volumes: SourceVolumes;
  readonly #desk: PointDesk;
  readonly #scrub: Scrub;
  readonly #startWatch: StartWatch;
  readonly #volume: VolumeWatch;

  private constructor(options: TargetOptions, deps: TargetDeps, parts: TargetParts) {
    this.#options = options;
    this.#deps = deps;
    this.#pairing = parts.pairing;
    this.#failovers = parts.failovers;
    this.#tests = parts.tests;
    this.#rehearsals = parts.rehearsals;
    this.#claims = parts.claims;
    this.#registry = parts.registry;
    this.#pointServer = parts.pointServer;
    this.#ingest = parts.ingest;
    this.certificate = parts.certificate;
    this.#orders = parts.orders;
    this.#volumes = parts.volumes;
    this.#scrub = new Scrub({
      ...(options.scrub ?? defaultScrub), clock: nodeClock, log: deps.log, groups: () => this.#scrubbed(),
      isPaused: () => this.#failovers.report().some(({ isRunning }) => isRunning),
    });
    this.#startWatch = new StartWatch({
      everyMs: options.failover.checkEveryMs ?? checkEveryMsDefault, stores: () => this.#registry.groups(), clock: nodeClock, log: deps.log,
      check: (store, question) => checkStart(store, { ...question, failover: options.failover, keepFreeBytes: options.keepFreeBytes, clock: nodeClock }),
    });
    this.#automatic = parts.automatic;
    this.#volume = new VolumeWatch({ disk: deps.disk ?? nodeDisk, clock: nodeClock, folder: options.dataFolder, keptBytes: options.keepFreeBytes });
    this.#desk = new PointDesk((nameOrId) => this.#group(nameOrId), nodeClock);
  }

  static async start(options: TargetOptions, deps: TargetDeps): Promise<Target> {
    const state = new TargetState(options.dataFolder);
    await state.prepare();
    const { ca, own } = await readTlsFiles(options.tls ?? {});
    const certificates = await OwnCertificates.open(options.dataFolder, options.name, own);
    const { targetId } = certificates;
    const reclaim = (groupId: string, term: number) => reclaimFrom(deps.localSource, groupId, term);
    const registry = await openRegistry({ disk: deps.disk ?? nodeDisk, clock: nodeClock, folder: state.groupsFolder, log: deps.log, reclaim, options: { freeBytesMin: options.keepFreeBytes, retentionOf: (group) => options.retention?.groups[group] ?? options.retention?.all ?? defaultRetention, suspicion: { random: nodeRandom, of: (group) => options.suspicion?.groups[group] ?? options.suspicion?.all ?? defaultSuspicion } } });
    let made: Target | null = null;
    const closing: { close(): Promise<void> }[] = [registry];
    try {
      const pairings = await SourcePairings.open({ folder: options.dataFolder, clock: nodeClock, random: nodeRandom, ca, hasGroups: (sourceId) => registry.groups().some((group) => group.report().sourceId === sourceId) });
      const listening: { ingest: Ingest | null } = { ingest: null };
      const { host: advertised, port: advertisedPort } = options.advertise;
      const pairing = new TargetPairing({
        name: options.name, certificates, pairings, tls: options.tls ?? {}, log: deps.log, ingest: () => listening.ingest!,
        address: () => ({ host: advertised, port: advertisedPort === 0 ? listening.ingest!.address.port : advertisedPort }),
      });
      const viewSocketPath = options.nbd.socketPath;
      const pointServer = await startPointServer(options.nbd, { groups: exportedGroups(registry), clock: nodeClock, log: deps.log, shown: () => certificates.shown });
      closing.unshift(pointServer);
      // Guests that an earlier process started read from the views again from here on; what that process left of tests and failovers is taken up.
      const shared = { failover: options.failover, viewSocketPath, pointsOf: (groupId: string) => registry.find(groupId)?.restorePoints ?? null, turns: new GroupTurns(), clock: nodeClock, log: deps.log };
      const tests = new TestFailovers({ ...shared, folder: join(options.dataFolder, 'tests'), keepFreeBytes: options.keepFreeBytes });
      const orders = new SourceOrders(nodeClock);
      const adopter = { name: options.name, fingerprint: () => certificates.fingerprint, points: deps.controlPath === undefined ? null : { nbdPath: viewSocketPath, controlPath: deps.controlPath }, token: async () => (await pairing.invite({})).token };
      const adoption = new Adoption({ localSource: deps.localSource ?? null, pairing: adopter, clock: nodeClock, log: deps.log });
      const host = await nodeFailoverHost({ folder: join(options.dataFolder, 'failovers'), overlayFolder: options.failover.overlayFolder, viewSocketPath, hooks: options.failover.hooks, manager: options.failover.manager, log: deps.log });
      const claims = await openClaims(options, targetId, deps.log);
      if (claims !== null) closing.unshift(claims);
      const failovers = new Failovers({ ...shared, host, claims, stores: () => registry.groups(), keepFreeBytes: options.keepFreeBytes, tests, orders, adoption, retire: (groupId) => registry.forget(groupId) });
      closing.unshift(failovers, tests);
      await tests.open(registry.groups());
      await failovers.open(registry.groups(), (groupId) => registry.find(groupId));
      const rehearsals = new Rehearsals({
        folder: join(options.dataFolder, 'rehearsals'), everyMs: options.rehearseEveryMs ?? {}, tests, stores: () => registry.groups(), version: deps.version, clock: nodeClock, log: deps.log,
      });
      closing.unshift(rehearsals);
      await rehearsals.open();
      const volumes = new SourceVolumes(options.volumes ?? { all: null, sources: {} }, nodeClock, (sourceId, name, message) => {
        deps.log.error({ code: 'VOLUME_EXCEEDED', source: name, sourceId }, message);
        void deps.audit?.note({ who: { kind: 'source', sourceId }, act: 'volume', on: name, what: { message }, outcome: 'VOLUME_EXCEEDED' });
      });
      const ingest = await listenIngest({
        host: options.listen.host, port: options.listen.port, ...certificates.shown, targetId, targetName: options.name,
        registry, orders, audit: deps.audit, volumes, peers: pairings, ...(ca === null ? {} : { ca }), nextCertificate: () => certificates.next, onNoted: () => pairing.onNoted(), clock: nodeClock, random: nodeRandom, log: deps.log,
      });
      listening.ingest = ingest;
      const automatic = claims === null ? null : new AutomaticFailovers({
        groups: options.failover.automatic ?? {}, claims, stores: () => registry.groups(), isConnected: (groupId) => orders.isPresent(groupId), isRunning: (group) => failovers.report().some((one) => one.group === group && one.guests.some(({ isRunning }) => isRunning)),
        failOver: (group) => notedFailover(deps.audit, group, () => made!.failover({ group })), clock: nodeClock, log: deps.log,
      });
      made = new Target(options, deps, { pairing, failovers, tests, rehearsals, claims, automatic, registry, pointServer, ingest, certificate: { ...certificates.shown, onShown: (listener) => certificates.onShown(listener) }, orders, volumes });
      automatic?.start();
      return made;
    } catch (error) {
      for (const part of closing) await part.close();
      throw error;
    }
  }

  report(): TargetReport {
    const report = this.#facts();
    return { ...report, alarms: targetAlarms(report, [...this.#deps.audit?.alarms() ?? [], ...this.#volumes.alarms()]) };
  }

  #facts(): TargetReport {
    const volume = this.#volume.report();
    return {
      role: 'target',
      version: this.#deps.version,
      atMs: nodeClock.nowMs(),
      address: this.#advertised(),
      fingerprint: this.#pairing.fingerprint,
      certificate: this.#pairing.certificate(),
      sources: this.#ingest.sources(),
      groups: this.#registry.groups().map((group) => group.report()),
      failovers: this.#failovers.report(),
      tests: this.#tests.report(),
      endedTests: this.#tests.ended(),
      rehearsals: this.#rehearsals.report(),
      checks: this.#scrubbed().map(({ name, checks }) => ({ group: name, ...checks.report() })),
      startChecks: this.#startWatch.report(),
      ...(this.#automatic === null ? {} : { automatic: this.#automatic.report() }),
      nbd: this.#pointServer.report(),
      refusals: this.#ingest.refusals(),
      memoryRssBytes: process.memoryUsage.rss(),
      ...(volume === null ? {} : { volume }),
      certificateExpiresAtMs: this.#pairing.certificate().expiresAtMs,
    };
  }

  async points(group: string): Promise<readonly StoredPoint[]> {
    return this.#group(group).points();
  }

  async timeline(group: string): Promise<GroupTimeline> {
    const timeline = await this.#desk.timeline(group);
    const proven = new Map((await this.#rehearsals.proven(timeline.group)).map((one) => [formatPoint(one), one.atMs]));
    return { ...timeline, points: timeline.points.map((point) => ({ ...point, ...(proven.has(formatPoint(point)) ? { provenAtMs: proven.get(formatPoint(point))! } : {}) })) };
  }

  async plan({ group, at, isPlanned = false }: PlanRequest): Promise<Runbook> {
    const store = this.#group(group);
    const report = store.report();
    const { failover } = this.#options;
    const points = await store.restorePoints.list();
    const atMs = nodeClock.nowMs();
    const read = readGroupHardware(store.hardware(), report.name);
    const how = { accel: await chooseAccel(failover.accel), ...planNetwork({ group: report.name, kind: 'failover', asked: undefined, fallback: failover.network, configured: failover.networks }) };
    return planRunbook({
      group: report, point: points.length === 0 ? null : choosePoint(points, isPlanned ? 'newest' : at ?? 'newest', atMs, report.name), isPlanned, isTesting: this.#tests.isTesting(store.groupId),
      guests: 'guests' in read ? read.guests.map(({ name }) => name) : [report.name], managed: 'guests' in read ? planManagedGroup(failover.manager, report.name, read.guests, how) : [], starts: failover.starts?.[report.name] ?? {}, isFollowed: this.#deps.localSource !== undefined,
      startCheck: this.#startWatch.report().find((one) => one.group === report.name) ?? null, rehearsal: this.#rehearsals.report().find((one) => one.group === report.name) ?? null, atMs,
    });
  }

  rehearse(request: RehearsalRequest): Promise<RehearsalReport & { readonly folder: string }> {
    return this.#rehearsals.rehearse(this.#group(request.group), request);
  }

  async showGuests(group: string): Promise<readonly ShownGuest[]> {
    const { name } = this.#group(group).report();
    const running = [...this.#tests.report(), ...this.#failovers.report()].find((one) => one.group === name);
    return Promise.all((running?.guests ?? []).filter(({ isRunning }) => isRunning).map(async (guest) => shownGuest(guest.name, await lookAtGuest(guest))));
  }

  showRehearsal(group: string): Promise<readonly ShownGuest[]> {
    return this.#rehearsals.shown(this.#group(group).report().name);
  }

  describePoint(group: string, at: string): Promise<PointDescription> {
    return this.#desk.describe(group, at);
  }

  holdPoint(request: HoldRequest): Promise<HeldPoint> {
    return this.#desk.hold(request);
  }

  async lockPoint(request: LockRequest): Promise<LockedPoint> {
    const { name, state, isReclaimed } = this.#group(request.group).report();
    // Its points go with the first byte that the guest writes.
    if (state === 'failed-over' && isReclaimed) throw new Fault('FAILOVER_STATE', `${name} runs on its own old disks: its points here are being given up`, { group: name, state });
    return this.#desk.lock(request);
  }

  async forget(nameOrId: string): Promise<void> {
    const store = this.#group(nameOrId);
    const { name, state } = store.report();
    if (this.#failovers.report().some(({ group }) => group === name)) throw new Fault('FAILOVER_STATE', `${name} failed over to here: end or commit that, and move the guest away first`, { group: name, state });
    if (this.#tests.isTesting(store.groupId)) throw new Fault('FAILOVER_STATE', `a test of ${name} is under way: end it first`, { group: name, state });
    if (this.#orders.isPresent(store.groupId)) throw new Fault('REQUEST_INVALID', `${name} is being protected to here: unprotect it at its source first`, { group: name });
    await this.#registry.forget(store.groupId);
    this.#deps.log.warn({ group: name, groupId: store.groupId }, `${name} and all its points were removed`);
  }

  releasePoint(group: string, holdId: string): Promise<void> {
    return this.#desk.release(group, holdId);
  }

  dismiss(group: string): Promise<SuspicionFlag> {
    return this.#group(group).dismissSuspicion();
  }

  changedSince(group: string, since: PointId, point: PointId): Promise<readonly DiskChanges[]> {
    return this.#group(group).restorePoints.changedSince(since, point);
  }

  verify(group: string, at: string | null): Promise<Verification> {
    return this.#desk.verify(group, at);
  }

  invite(request: InvitationRequest): Promise<Invitation> {
    return this.#pairing.invite(request);
  }

  pairings(): TargetPairingsReport {
    return this.#pairing.report();
  }

  revoke(which: string): Promise<{ readonly name: string; readonly sourceId: string }> {
    return this.#pairing.revoke(which);
  }

  revokeOldSecrets(): Promise<number> {
    return this.#pairing.revokeOldSecrets();
  }

  rotate(isNow: boolean): Promise<RotationReport> {
    return this.#pairing.rotate(isNow);
  }

  async failover(request: FailoverRequest): Promise<FailoverResult> {
    const store = this.#group(request.group);
    if (request.planned !== undefined) refuseToMove(await this.checkStart({ group: request.group, accel: request.accel, network: request.network }));
    return explained(this.#startWatch.beside(store, request), () => this.#failovers.failOver(store, request));
  }

  stopFailover(group: string, isRolledBack: boolean): Promise<void> {
    return this.#failovers.stop(this.#group(group), isRolledBack);
  }

  commitFailover(group: string): Promise<void> {
    return this.#failovers.commit(this.#group(group));
  }

  testFailover(request: TestRequest): Promise<TestResult> {
    const store = this.#group(request.group);
    return explained(this.#startWatch.beside(store, { accel: request.accel, network: request.network ?? 'none' }), () => this.#tests.start(store, request));
  }

  stopTest(group: string): Promise<void> {
    return this.#tests.stop(this.#group(group));
  }

  checkStart({ group, ...question }: StartRequest): Promise<StartReport> {
    // A person may just have mended what is remembered.
    return this.#startWatch.check(this.#group(group), { ...question, qemu: { ageMsMax: 0 } });
  }

  async seedFrom(group: string, disk: number, imagePath: string): Promise<void> {
    await this.#registry.seedFrom(group, disk, imagePath);
  }

  async close(): Promise<void> {
    await this.#automatic?.close();
    await this.#scrub.close();
    await this.#volume.close();
    await this.#startWatch.close();
    await this.#ingest.close();
    await this.#rehearsals.close();
    await this.#failovers.close();
    await this.#claims?.close();
    await this.#tests.close();
    await this.#pointServer.close();
    await this.#registry.close();
  }

  #scrubbed(): ScrubbedGroup[] {
    return this.#registry.groups().flatMap((group) => {
      const { checks } = group.restorePoints;
      return checks === undefined ? [] : [{ name: group.report().name, checks }];
    });
  }

  #group(nameOrId: string): GroupStore {
    const found = this.#registry.find(nameOrId);
    if (found === null) throw new Fault('GROUP_UNKNOWN', `no group named ${nameOrId} is here`, { group: nameOrId });
    return found;
  }

  #address(): { host: string; port: number } {
    const { host, port } = this.#options.advertise;
    return { host, port: port === 0 ? this.#ingest.address.port : port };
  }

  #advertised(): string {
    const { host, port } = this.#address();
    return `${host}:${port}`;
  }
}

/** Only a guest that came back by a failover has left something behind. Fault SOURCE_ABSENT: it cannot be asked now, and all of a guest is not copied for that. */
async function reclaimFrom(localSource: LocalSource | undefined, groupId: string, term: number): Promise<SurrenderedImages | null> {
  if (localSource === undefined || term === 1) return null;
  try {
    return await localSource.surrender(groupId, term);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('SOURCE_ABSENT', `whether this host has old disks of the guest cannot be asked of its source: ${error.message}`, { group: groupId, code: error.code }, error);
  }
}

/** Nobody asked for it. */
async function notedFailover<T>(audit: AuditNoter | undefined, group: string, failOver: () => Promise<T>): Promise<T> {
  const entry = { who: { kind: 'itself' }, act: 'failover', on: group, what: { isAutomatic: true } } as const;
  void audit?.note({ ...entry, outcome: 'begun' });
  try {
    const result = await failOver();
    void audit?.note({ ...entry, outcome: 'done' });
    return result;
  } catch (error) {
    void audit?.note({ ...entry, outcome: error instanceof Fault ? error.code : 'INTERNAL' });
    throw error;
  }
}

async function openClaims({ witness, name }: TargetOptions, targetId: string, log: Logger): Promise<Claims | null> {
  return witness === undefined ? null : new Claims({ witness: await openWitness(witness), ttlMs: witness.ttlMs, targetId, name, clock: nodeClock, log });
}

function exportedGroups(registry: GroupRegistry): { all(): ExportedGroup[]; find(nameOrId: string): ExportedGroup | null } {
  const exported = (store: GroupStore): ExportedGroup => ({ groupId: store.groupId, name: store.report().name, points: store.restorePoints });
  return {
    all: () => registry.groups().map(exported),
    find: (nameOrId) => {
      const store = registry.find(nameOrId);
      return store === null ? null : exported(store);
    },
  };
}

export async function startTarget(options: TargetOptions, deps: TargetDeps): Promise<RunningTarget> {
  const target = await Target.start(options, deps);
  return { operations: target, certificate: target.certificate, report: () => target.report(), close: () => target.close() };
}
