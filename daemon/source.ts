/**
 * The source role put together: state, links to the paired targets, one supervisor per protected guest. It answers the
 * operator (operations.ts) and makes the one report; how a guest is kept protected is the supervisor's matter.
 */
import { join } from 'node:path';
import { nodeClock } from '../host/node/clock.ts';
import { openWitness } from '../host/node/etcd-witness.ts';
import { preparePrivateFolder } from '../host/node/private-folder.ts';
import { nodeRandom } from '../host/node/random.ts';
import { Fault, isFault } from '../journal/fault.ts';
import { isUntouched, type GuestImage } from '../qemu/guest-images.ts';
import { sourceAlarms } from './alarms-plan.ts';
import type { Capture, CaptureChoice } from './capture/capture.ts';
import { CbtCapture } from './capture/cbt-capture.ts';
import { DmLogCapture } from './capture/dm-log/dm-log-capture.ts';
import { SpoolTally } from './capture/spool.ts';
import { AppHold } from './freeze/app-hold.ts';
import { FrozenNotes } from './freeze/frozen-notes.ts';
import { JointAppHold } from './joint/joint-app-hold.ts';
import { JointCapture, type JointLayout } from './joint/joint-capture.ts';
import { PauseGuard, PauseWatchdog } from './joint/pause-guard.ts';
import { pausedFolder, PausedNotes } from './joint/paused-notes.ts';
import { thawLeftovers } from './freeze/thaw-leftovers.ts';
import { GuestLeases, type OnLeaseLost } from './lease/guest-leases.ts';
import { anyPower, whyUnstoppable, withOwnPower } from './lease/own-power.ts';
import { boundAbandon, boundAdoption } from './neighbour-plan.ts';
import type { AdoptRequest, GroupMember, MarkRequest, Neighbour, PairedTarget as PairedTargetReply, ProtectRequest, RunningSource, SourceDeps, SourceOptions, SourceOperations, SurrenderedGuest } from './operations.ts';
import type { MarkedPoint, SourceReport } from './report.ts';
import { isRunningHere, onlyOther, placeOf, placesOf, qmpPathsOf } from './guest-places.ts';
import { PairedTargets, pairLimitMs, type Linked, type SourcePairingsReport, type SourceRotationReport } from './pairing/paired-targets.ts';
import { SourceState, type ProtectedGuest } from './source-state.ts';
import { RelayCapture } from './relay/relay-capture.ts';
import type { HandoverNote } from './supervisor/handover.ts';
import type { SupervisorOptions } from './supervisor/supervisor-options.ts';
import { Throttle } from './stream/throttle.ts';
import { copyPaceMsMin, GuestSupervisor } from './supervisor/guest-supervisor.ts';

/** How long a guest's file systems may be frozen: below the 10 s after which Windows thaws by itself, and what services bear. */
const freezeLimitMsDefault = 5_000;
/** How long `mark` waits for the target, ms. */
const markLimitMsDefault = 60_000;
/** How long the guests of a group may be paused for a cut: below what services take for a failure. */
const pauseMsMaxDefault = 1_000;

/** `relay`: sends its points on to where it came from. */
interface Supervised { guest: ProtectedGuest; readonly supervisor: GuestSupervisor; readonly capture: Capture; relay: GuestSupervisor | null }

class Source implements SourceOperations {
  readonly #options: SourceOptions;
  readonly #deps: SourceDeps;
  readonly #state: SourceState;
  #targets: PairedTargets | null = null;
  readonly #guests = new Map<string, Supervised>();
  readonly #spoolTally = new SpoolTally();
  readonly #frozenNotes: FrozenNotes;
  readonly #pausedNotes: PausedNotes;
  readonly #pauseWatchdog: PauseWatchdog;
  /** Names and QMP paths of guests whose `protect` is under way. */
  readonly #beingProtected = new Set<string>();
  readonly #throttle: Throttle;
  #sourceId = '';
  #leases: GuestLeases | null = null;

  constructor(options: SourceOptions, deps: SourceDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#state = new SourceState(options.dataFolder);
    this.#throttle = new Throttle(options.limits ?? [], nodeClock, (groupId) => [...this.#guests.values()].find(({ guest }) => guest.groupId === groupId)?.guest.name ?? null);
    this.#frozenNotes = new FrozenNotes(join(options.dataFolder, 'frozen'));
    this.#pausedNotes = new PausedNotes(pausedFolder(options.dataFolder));
    this.#pauseWatchdog = new PauseWatchdog(this.#pausedNotes.folder);
  }

  async start(): Promise<void> {
    // QEMU may run as another user, which opens its image by name and lists nothing.
    await preparePrivateFolder(this.#options.spool.folder, 0o711);
    await this.#state.prepare();
    await this.#frozenNotes.prepare();
    // Before anything else: a guest that stands still waits for it.
    await thawLeftovers(this.#frozenNotes, this.#deps.log);
    await this.#pausedNotes.prepare();
    await this.#pausedNotes.goOn();
    this.#sourceId = await this.#state.identity(() => nodeRandom.bytes(16).toString('hex'));
    const { witness, name, dataFolder } = this.#options;
    if (witness !== undefined) this.#leases = new GuestLeases({ witness: await openWitness(witness), ttlMs: witness.ttlMs, sourceId: this.#sourceId, name, dataFolder, clock: nodeClock, log: this.#deps.log });
    await this.#leases?.start();
    this.#targets = await PairedTargets.open({ name, dataFolder, tls: this.#options.tls ?? {}, state: this.#state, sourceId: this.#sourceId, log: this.#deps.log, onRelinked: (target) => this.#relinked(target), gate: (target) => this.#throttle.gate(target) });
    for (const guest of await this.#state.guests()) await this.#supervise(guest);
  }

  report(): SourceReport {
    const guests = [...this.#guests.values()].map(({ guest, supervisor }) => {
      const lease = this.#leases?.report(guest.groupId) ?? null;
      return { ...supervisor.report(), ...(lease === null ? {} : { lease }) };
    });
    return {
      role: 'source',
      sourceId: this.#sourceId,
      version: this.#deps.version,
      atMs: nodeClock.nowMs(),
      certificate: this.#paired.certificate(),
      targets: [...this.#links.values()].map(({ target, link, encoder }) => ({
        name: target.name, address: `${target.host}:${target.port}`, ...link.report(), compression: encoder.compression(),
      })),
      guests,
      relays: [...this.#guests.values()].flatMap(({ relay }) => (relay === null ? [] : [relay.report()])),
      limits: this.#throttle.report(),
      memoryRssBytes: process.memoryUsage.rss(),
      alarms: sourceAlarms({ guests }, this.#deps.audit?.alarms()),
    };
  }

  async pair(token: string): Promise<PairedTargetReply> {
    const { name, host, port, fingerprint } = await this.#paired.pair(token);
    return { name, address: `${host}:${port}`, fingerprint };
  }

  pairings(): SourcePairingsReport {
    return this.#paired.report();
  }

  revoke(which: string): Promise<{ readonly name: string }> {
    return this.#paired.revoke(which);
  }

  rotate(isNow: boolean): Promise<SourceRotationReport> {
    return this.#paired.rotate(isNow);
  }

  async protect(request: ProtectRequest): Promise<{ name: string; groupId: string; target: string }> {
    const target = this.#chooseTarget(request.target);
    const places = placesOf(request);
    const twice = places.find((place, at) => places.indexOf(place) !== at);
    if (twice !== undefined) throw new Fault('REQUEST_INVALID', `${twice} is named twice`, { name: request.name });
    for (const { guest } of this.#guests.values()) {
      const taken = placesOf(guest).find((place) => places.includes(place));
      if (taken !== undefined) throw new Fault('GUEST_TAKEN', `${taken} is protected already, as ${guest.name}`, { name: guest.name });
    }
    if (request.members !== undefined && (request.capture ?? 'cbt') !== 'cbt') throw new Fault('REQUEST_INVALID', 'the guests of a group of several are followed by dirty bitmaps', { name: request.name });
    const choice = request.dmLogPath === undefined ? request.capture ?? 'cbt' : 'writelog';
    refusePace(request.rpoMs, choice);
    const guest: ProtectedGuest = {
      name: request.name,
      groupId: nodeRandom.bytes(16).toString('hex'),
      qmpPath: request.qmpPath,
      target: target.target.name,
      rpoMs: request.rpoMs,
      capture: choice,
      rateBytesPerSecond: request.rateBytesPerSecond ?? 0,
      isPaused: request.isPaused ?? false,
      ...(request.storageDaemonDisks === undefined ? {} : { storageDaemonDisks: request.storageDaemonDisks.map((node) => ({ name: node, node })) }),
      ...(request.dmLogPath === undefined ? {} : { dmLogPath: request.dmLogPath }),
      ...(request.members === undefined ? {} : { members: [...request.members] }),
    };
    const taken = places.find((place) => this.#beingProtected.has(place));
    if (taken !== undefined) throw new Fault('GUEST_TAKEN', `${taken} is being protected already`, { name: guest.name });
    for (const place of places) this.#beingProtected.add(place);
    try {
      const why = this.#onLeaseLost(guest) === 'pause' ? await whyUnstoppable(qmpPathsOf(guest)) : null;
      if (why !== null) throw new Fault('GUEST_UNSUITED', why, { name: guest.name });
      const probe = this.#capture(guest);
      try {
        await probe.connect();
      } finally {
        await probe.close();
      }
      await this.#state.putGuest(guest);
      await this.#supervise(guest);
    } finally {
      for (const place of places) this.#beingProtected.delete(place);
    }
    return { name: guest.name, groupId: guest.groupId, target: guest.target };
  }

  async adopt(request: AdoptRequest, from?: Neighbour): Promise<void> {
    const { base, token, target, points, members, ...adopted } = from === undefined ? request
      : boundAdoption(request, from, { guests: [...this.#guests.values()].map(({ guest }) => guest), isTargetKnown: (name) => this.#links.has(name), isRunning: await isRunningHere(this.#guests.get(request.name)?.guest) });
    const { name, groupId } = adopted;
    const before = this.#guests.get(name);
    if (before !== undefined && before.guest.groupId !== groupId) throw new Fault('GUEST_TAKEN', `another guest is protected here as ${name}`, { name });
    const targetName = target?.name ?? before?.guest.target;
    if (targetName === undefined) throw new Fault('TARGET_UNPAIRED', `${name} was never protected from here: it has no target to go back to`, { name });
    if (target !== null && !this.#paired.isPairedWith(target.name, target.fingerprint)) {
      if (token === null) throw new Fault('TARGET_UNPAIRED', `this source is not paired with ${target.name}`, { target: target.name });
      await this.pair(token);
    }
    const { handover: _, relay: __, supersededBy: ___, members: ____, knownTerm: _____, ...fromBefore } = before?.guest ?? {};
    const way = points === null ? undefined : onlyOther(this.#links, targetName);
    const guest: ProtectedGuest = {
      capture: 'cbt', rateBytesPerSecond: 0, ...fromBefore, ...adopted, members: members === undefined ? undefined : [...members], target: targetName, isPaused: false,
      ...(way === undefined || points === null ? {} : { relay: { target: way, ...points } }),
    };
    await this.#endSupervision(before);
    const capture = this.#capture(guest);
    try {
      await capture.connect();
      if (base !== null) await capture.begin(base);
    } catch (error) {
      if (before !== undefined) await this.#supervise(before.guest);
      throw error;
    } finally {
      await capture.close();
    }
    await this.#state.putGuest(guest);
    await this.#supervise(guest);
  }

  async abandon(groupId: string, from?: Neighbour): Promise<void> {
    const found = [...this.#guests.values()].find(({ guest }) => guest.groupId === groupId);
    if (found === undefined) return;
    if (from !== undefined) boundAbandon(found.guest, from);
    await this.#endSupervision(found);
    this.#guests.delete(found.guest.name);
    await this.#leases?.remove(groupId);
    await this.#state.removeGuest(found.guest.name);
  }

  async surrender(groupId: string, term: number): Promise<SurrenderedGuest | null> {
    const found = [...this.#guests.values()].find(({ guest }) => guest.groupId === groupId);
    if (found === undefined) return null;
    const { handover, images = [] } = found.guest;
    if (handover?.state === 'relinquished' && handover.term <= term) {
      const found = await Promise.all(handover.images.map(isUntouched));
      if (found.includes(null)) return null;
      const isSame = !found.includes(false);
      return { point: isSame ? handover.point : null, images: handover.images.map(placeOf) };
    }
    const known = (await this.#state.lastPoint('points', found.guest.name))?.term ?? found.guest.term ?? 1;
    if (images.length === 0 || term <= known || await isRunningHere(found.guest) || (await Promise.all(images.map(isUntouched))).includes(null)) return null;
    await this.#keepGuest(found.guest.name, (guest) => ({ ...guest, supersededBy: term }));
    this.#deps.log.warn({ guest: found.guest.name, term }, `${found.guest.name} is live elsewhere since term ${term}; its disks here are taken for its way home`);
    return { point: null, images: images.map(placeOf) };
  }

  async unprotect(name: string, isForgotten: boolean): Promise<void> {
    const { guest, supervisor, relay } = this.#guest(name);
    const session = isForgotten ? await this.#links.get(guest.target)!.link.session(AbortSignal.timeout(pairLimitMs)) : null;
    await relay?.close();
    try {
      await this.#leases?.forget(guest.groupId);
      await supervisor.release();
    } catch (error) {
      // Still protected, then: an unprotect that failed must not leave a guest that only looks so.
      await supervisor.close();
      await this.#supervise(guest);
      throw error;
    }
    this.#guests.delete(name);
    await this.#leases?.remove(guest.groupId);
    await this.#state.removeGuest(name);
    await session?.forget(guest.groupId);
  }

  pause(name: string): Promise<void> {
    return this.#pause(name, true);
  }

  resume(name: string): Promise<void> {
    return this.#pause(name, false);
  }

  async setCapture(name: string, choice: CaptureChoice): Promise<void> {
    const supervised = this.#guest(name);
    if (supervised.guest.members !== undefined && choice !== 'cbt') throw new Fault('REQUEST_INVALID', 'the guests of a group of several are followed by dirty bitmaps', { name });
    if (supervised.guest.dmLogPath !== undefined) throw new Fault('REQUEST_INVALID', `${name} is followed by the kernel’s log of its writes, and by nothing else`, { name });
    refusePace(supervised.guest.rpoMs, choice);
    supervised.guest = { ...supervised.guest, capture: choice };
    await this.#state.putGuest(supervised.guest);
    supervised.capture.choose(choice);
  }

  async setQmpPath(name: string, qmpPath: string): Promise<void> {
    const supervised = [...this.#guests.values()].find(({ guest }) => guest.members?.some((member) => member.name === name)) ?? this.#guest(name);
    const { members, name: group } = supervised.guest;
    if (members !== undefined && group === name) throw new Fault('REQUEST_INVALID', `${name} is a group: name the guest (${members.map((member) => member.name).join(', ')})`, { name });
    const taken = [...this.#guests.values()].find(({ guest }) => qmpPathsOf(guest).includes(qmpPath) && (guest.name !== name));
    if (taken !== undefined) throw new Fault('GUEST_TAKEN', `the guest at ${qmpPath} is protected already, as ${taken.guest.name}`, { name: taken.guest.name });
    const moved = members?.map((member) => (member.name === name ? { name, qmpPath } : member));
    await this.#keepGuest(group, (guest) => ({ ...guest, ...(moved === undefined ? { qmpPath } : { members: moved, qmpPath: moved[0]!.qmpPath }) }));
    await this.#endSupervision(supervised);
    await this.#supervise(supervised.guest);
  }

  resync(name: string): Promise<void> {
    return Promise.resolve().then(() => this.#guest(name).supervisor.resync());
  }

  async #pause(name: string, isPaused: boolean): Promise<void> {
    const supervised = this.#guest(name);
    supervised.guest = { ...supervised.guest, isPaused };
    await this.#state.putGuest(supervised.guest);
    await supervised.supervisor.pause(isPaused);
  }

  mark({ name, isApp, label, limitMs }: MarkRequest): Promise<MarkedPoint> {
    return this.#guest(name).supervisor.mark({ isApp: isApp ?? false, label }, limitMs ?? markLimitMsDefault);
  }

  #noteHandover(name: string, note: HandoverNote | null): Promise<void> {
    return this.#keepGuest(name, ({ handover: _, ...guest }) => ({ ...guest, ...(note === null ? {} : { handover: note }) }));
  }

  /** While a guest is being adopted it is noted with its layout in one. */
  async #noteLayout(guest: ProtectedGuest, layout: JointLayout): Promise<void> {
    guest.layout = layout.map(({ guest: member, disks }) => ({ guest: member, disks: [...disks] }));
    if (this.#guests.get(guest.name)?.guest.groupId !== guest.groupId) return;
    await this.#keepGuest(guest.name, (known) => ({ ...known, layout: guest.layout }));
  }

  /** What the group's target says: after a roll-back it is higher than the one in which its guest came here. */
  async #noteTerm(name: string, term: number): Promise<void> {
    const { guest } = this.#guest(name);
    if ((guest.knownTerm ?? guest.term ?? 1) < term) await this.#keepGuest(name, (known) => ({ ...known, knownTerm: term }));
  }

  async #keepGuest(name: string, change: (guest: ProtectedGuest) => ProtectedGuest): Promise<void> {
    const supervised = this.#guest(name);
    supervised.guest = change(supervised.guest);
    await this.#state.putGuest(supervised.guest);
  }

  async setRate(name: string, rateBytesPerSecond: number): Promise<void> {
    const supervised = this.#guest(name);
    supervised.guest = { ...supervised.guest, rateBytesPerSecond };
    await this.#state.putGuest(supervised.guest);
    supervised.supervisor.setRate(rateBytesPerSecond);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#guests.values()].map((supervised) => this.#endSupervision(supervised)));
    await this.#targets?.close();
    await this.#leases?.close();
    this.#pauseWatchdog.leave();
  }

  #guest(name: string): Supervised {
    const found = this.#guests.get(name);
    if (found === undefined) throw new Fault('GROUP_UNKNOWN', `no guest named ${name} is protected here`, { name });
    return found;
  }

  #chooseTarget(name: string | undefined): Linked {
    const found = name === undefined && this.#links.size === 1 ? [...this.#links.values()][0] : this.#links.get(name ?? '');
    if (found === undefined) {
      throw new Fault('TARGET_UNPAIRED', name === undefined ? `name the target: ${this.#links.size} are paired` : `no target named ${name} is paired`, { paired: [...this.#links.keys()] });
    }
    if (this.#paired.isRevoked(found.target.name)) throw new Fault('PAIRING_REVOKED', `the pairing with ${found.target.name} was revoked here`, { target: found.target.name });
    return found;
  }

  get #paired(): PairedTargets {
    if (this.#targets === null) throw new Error('the source has not started');
    return this.#targets;
  }

  get #links(): ReadonlyMap<string, Linked> { return this.#paired.links; }

  /** A target was paired anew: its guests go on over the new link. Whatever a supervisor waited for on the old one has ended with it. */
  async #relinked(targetName: string): Promise<void> {
    for (const supervised of [...this.#guests.values()]) {
      const { guest } = supervised;
      if (guest.target !== targetName && guest.relay?.target !== targetName) continue;
      await this.#endSupervision(supervised);
      await this.#supervise(guest);
    }
  }

  #capture(guest: ProtectedGuest): Capture {
    if (guest.dmLogPath !== undefined) {
      const notePath = join(this.#options.dataFolder, 'dm-logs', `${guest.groupId}.json`);
      return new DmLogCapture({ devicePath: guest.qmpPath, logPath: guest.dmLogPath, notePath, clock: nodeClock, random: nodeRandom });
    }
    const { members, name } = guest;
    if (members === undefined) return this.#captureOf(guest, guest);
    const { consistency = 'strict', pauseMsMax = pauseMsMaxDefault } = this.#options.guests?.[name] ?? {};
    return new JointCapture({
      members: members.map((member) => ({ ...member, capture: this.#captureOf(guest, member) })), consistency, pauseMsMax,
      guard: new PauseGuard(name, this.#pausedNotes, this.#pauseWatchdog), clock: nodeClock, layout: guest.layout ?? null,
      noteLayout: (layout) => this.#noteLayout(guest, layout),
    });
  }

  #captureOf(guest: ProtectedGuest, { name, qmpPath }: GroupMember): Capture {
    const { folder, budgetBytes, keepFreeBytes } = this.#options.spool;
    return new CbtCapture({
      groupId: guest.groupId,
      qmpPath,
      capture: guest.capture,
      rpoMs: guest.rpoMs,
      spool: { folder: join(folder, name), budgetBytes, freeBytesMin: keepFreeBytes, tally: this.#spoolTally },
      clock: nodeClock,
      log: this.#deps.log,
      ...(guest.storageDaemonDisks === undefined ? {} : { storageDaemonDisks: guest.storageDaemonDisks }),
    });
  }

  async #supervise(guest: ProtectedGuest): Promise<void> {
    const capture = this.#capture(guest);
    const options = this.#options.guests?.[guest.name] ?? {};
    const supervisor = new GuestSupervisor({
      ...await this.#supervision(guest, guest.target, 'points'),
      capture,
      app: {
        everyMs: options.appEveryMs ?? null,
        hold: () => (guest.members === undefined || !(capture instanceof JointCapture) ? this.#appHold(guest.name, capture) : new JointAppHold(capture.members.map((member) => this.#appHold(member.name, member.capture)))),
      },
      // Of a guest whose points are sent on it is the way on that is asked to hand it over.
      handover: guest.relay === undefined ? guest.handover ?? null : null,
      ...(guest.dmLogPath === undefined && guest.storageDaemonDisks === undefined ? { noteImages: (images: readonly GuestImage[]) => this.#keepGuest(guest.name, (known) => ({ ...known, images: [...images] })) } : {}),
      relinquish: () => Promise.resolve(),
    });
    const supervised: Supervised = { guest, supervisor, capture, relay: null };
    this.#guests.set(guest.name, supervised);
    await this.#lease(supervised);
    if (guest.relay === undefined || guest.handover?.state !== 'relinquished') supervisor.start();
    const { askChanges } = this.#deps;
    if (guest.relay === undefined || askChanges === undefined) return;
    const { nbdPath, controlPath } = guest.relay;
    supervised.relay = new GuestSupervisor({
      ...await this.#supervision(guest, guest.relay.target, 'relayed'),
      capture: new RelayCapture({
        groupId: guest.groupId, term: guest.term ?? 1, pointsPath: nbdPath, guest: supervisor.relayed(), clock: nodeClock,
        changes: (since, point) => askChanges(controlPath, guest.groupId, since, point),
      }),
      handover: guest.handover ?? null,
      relinquish: (term, sourceId) => this.#giveAway(guest.name, term, sourceId),
    });
    supervised.relay.start();
  }

  /** Held while its guests run here, as far as this source knows. */
  async #lease({ guest, supervisor, capture }: Supervised): Promise<void> {
    const { name: group, groupId, qmpPath, handover } = guest;
    const onLost = this.#onLeaseLost(guest);
    // Protected before the config said so: it goes on, and whoever relies on it hears of it.
    if (onLost === 'pause') void whyUnstoppable(qmpPathsOf(guest)).then((why) => { if (why !== null) this.#deps.log.error({ guest: group }, why); }, (error: unknown) => this.#deps.log.warn({ guest: group, err: error }, 'whether it can be stopped in time is not known'));
    const isGone = (): boolean => (this.#guests.get(group)?.guest.handover ?? handover)?.state === 'relinquished';
    await this.#leases?.add({ group, groupId, qmpPath, onLost, power: () => (capture instanceof JointCapture ? anyPower(capture.members.map((member) => member.capture.power())) : capture.power()), withOwn: (act) => withOwnPower(qmpPathsOf(guest), act), term: () => (isGone() ? null : this.#guests.get(group)?.guest.knownTerm ?? guest.term ?? 1) });
  }

  #onLeaseLost({ name, dmLogPath, storageDaemonDisks }: ProtectedGuest): OnLeaseLost {
    // Without a witness there is no lease; what is no QEMU's guest cannot be stopped.
    if (this.#options.witness === undefined || dmLogPath !== undefined || storageDaemonDisks !== undefined) return 'ignore';
    return this.#options.guests?.[name]?.onLeaseLost ?? this.#options.witness.onLeaseLost;
  }

  #appHold(guest: string, capture: Capture): AppHold {
    const { agentPath = null, freezeLimitMs = freezeLimitMsDefault } = this.#options.guests?.[guest] ?? {};
    return new AppHold({ guest, agentPath, findChannel: () => capture.agentChannel(), limitMs: freezeLimitMs, notes: this.#frozenNotes, clock: nodeClock, log: this.#deps.log });
  }

  /** What a guest's supervision to one target, and that of its points being sent on to another, have in common. */
  async #supervision(guest: ProtectedGuest, target: string, kind: 'points' | 'relayed'): Promise<Omit<SupervisorOptions, 'capture' | 'handover' | 'relinquish'>> {
    const linked = this.#links.get(target);
    if (linked === undefined) throw new Fault('TARGET_UNPAIRED', `guest ${guest.name} is protected to ${target}, which is not paired`, { guest: guest.name });
    const { link, encoder, passes, turns } = linked;
    const { name, groupId, qmpPath, rpoMs, members } = guest;
    return {
      facts: { name, groupId, qmpPath, target, rpoMs, ...(members === undefined ? {} : { members }) }, link, encoder, passes, turns, clock: nodeClock, random: nodeRandom,
      log: this.#deps.log.child({ guest: name, ...(kind === 'relayed' ? { to: target } : {}) }),
      rateBytesPerSecond: guest.rateBytesPerSecond,
      isPaused: guest.isPaused,
      ...(guest.term === undefined ? {} : { term: guest.term }),
      noteHandover: (note) => this.#noteHandover(name, note),
      checkStart: () => this.#leases?.checkStart(groupId),
      ...(kind === 'points' ? { noteTerm: (term: number) => this.#noteTerm(name, term) } : {}),
      lastPoint: await this.#state.lastPoint(kind, name),
      onAcknowledged: (point) => {
        this.#state.putLastPoint(kind, name, point).catch((error: unknown) => this.#deps.log.error({ err: error }, 'the last point could not be noted'));
      },
    };
  }

  /** Its QEMU stands still, and whose points it is made of must not be taken for its own any more. */
  async #giveAway(name: string, term: number, sourceId: string): Promise<void> {
    const { guest, supervisor } = this.#guest(name);
    await supervisor.close();
    const session = await this.#links.get(guest.target)!.link.session(AbortSignal.timeout(pairLimitMs));
    await session.handOver(guest.groupId, term, sourceId);
  }

  async #endSupervision(supervised: Supervised | undefined): Promise<void> {
    await supervised?.relay?.close();
    await supervised?.supervisor.close();
    if (supervised !== undefined) await this.#leases?.suspend(supervised.guest.groupId);
  }
}

/** Copies of dirty blocks more often than once a second weigh on the guest more than they are worth. Fault REQUEST_INVALID. */
function refusePace(rpoMs: number, choice: CaptureChoice): void {
  if (rpoMs < copyPaceMsMin && choice === 'cbt') throw new Fault('REQUEST_INVALID', `a point every ${rpoMs} ms needs a write log: --capture writelog`, { rpoMs });
}

export async function startSource(options: SourceOptions, deps: SourceDeps): Promise<RunningSource> {
  const source = new Source(options, deps);
  await source.start();
  return { operations: source, report: () => source.report(), close: () => source.close() };
}
