/**
 * The targets that a source is paired with: pairs, revokes, keeps a link to each, and sees to the certificates of both sides
 * over it (PROTOCOL.md, "Rotation"). What is sent over a link is the supervisors' matter. Invariants: what a target has pinned
 * is noted durably before the source relies on it; the connection that stands is never ended for a certificate's sake.
 */
import type { Logger } from 'pino';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { readTlsFiles, type TlsPaths } from '../../host/node/tls-files.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { checkRenewal, fingerprintOf, readToken, signRenewal, type OwnCertificate, type PairingToken } from '../../journal/identity.ts';
import { PassTurns } from '../resync/pass-turns.ts';
import type { PairedTarget, SourceState } from '../source-state.ts';
import { connectTarget, type TargetAddress } from '../stream/connect-target.ts';
import { Encoder } from '../stream/encoder.ts';
import { CycleTurns } from '../stream/cycle-turns.ts';
import type { TargetLink } from '../stream/session.ts';
import { openTargetLink } from '../stream/target-link.ts';
import type { OutboxGate } from '../stream/throttle.ts';
import { sessionLimits, type CertificateMessage, type WireSession } from '../stream/wire-session.ts';
import { SourceCertificate, type CertificateReport } from './source-certificate.ts';

/** How long pairing waits for the target, and a link for its first session, ms. */
export const pairLimitMs = 15_000;
/** Between two attempts of a pairing whose target does not answer, ms. */
const pairPaceMs = 500;
/** How often a target that connects again and again has its last use written down, ms. */
const usePaceMs = 60_000;

/** One encoder per link: it is the link that decides whether to compress. */
export interface Linked { readonly target: PairedTarget; readonly link: TargetLink; readonly encoder: Encoder; readonly passes: PassTurns; readonly turns: CycleTurns }

export interface TargetPairingReport {
  readonly name: string;
  /** host:port */
  readonly address: string;
  readonly fingerprint: string;
  /** The one that the target is going to show. */
  readonly nextFingerprint: string | null;
  /** Null: before releases noted it. */
  readonly pairedAtMs: number | null;
  readonly lastUseAtMs: number | null;
  readonly revokedAtMs: number | null;
  /** By a secret of an earlier release, until it is next connected. */
  readonly isBySecret: boolean;
  /** It has this source's newest certificate. */
  readonly hasNewest: boolean;
}

export interface SourcePairingsReport { readonly targets: readonly TargetPairingReport[]; readonly certificate: SourceRotationReport }

export interface SourceRotationReport extends CertificateReport {
  /** Names of targets that do not have the next one yet. */
  readonly awaited: readonly string[];
}

export interface PairedTargetsOptions {
  /** How this source names itself. */
  readonly name: string;
  readonly dataFolder: string;
  readonly tls: TlsPaths;
  readonly state: SourceState;
  readonly sourceId: string;
  readonly log: Logger;
  /** A target has another link: whatever used the old one, which is closed, goes on over it. */
  readonly onRelinked: (targetName: string) => Promise<void>;
  /** What holds back records on their way to a target (throttle.ts). */
  readonly gate?: (targetName: string) => OutboxGate | null;
}

export class PairedTargets {
  readonly #o: PairedTargetsOptions;
  readonly #certificate: SourceCertificate;
  readonly #ca: string | null;
  readonly #linked = new Map<string, Linked>();
  /** As they are on disk, by name. */
  readonly #targets = new Map<string, PairedTarget>();
  readonly #sessions = new Map<string, WireSession>();
  /** Changes of what is on disk, one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(options: PairedTargetsOptions, certificate: SourceCertificate, ca: string | null) {
    this.#o = options;
    this.#certificate = certificate;
    this.#ca = ca;
  }

  /** Opens a link to each. Fault CONFIG_INVALID: files of certificates or keys cannot be used. */
  static async open(options: PairedTargetsOptions): Promise<PairedTargets> {
    const { ca, own } = await readTlsFiles(options.tls);
    const targets = new PairedTargets(options, await SourceCertificate.open(options.dataFolder, options.name, own), ca);
    for (const target of await options.state.targets()) targets.#link(target);
    return targets;
  }

  get links(): ReadonlyMap<string, Linked> { return this.#linked; }

  /** Whether that is a certificate of the target, shown now or announced. */
  isPairedWith(name: string, fingerprint: string): boolean {
    const target = this.#targets.get(name);
    return target !== undefined && target.revokedAtMs === undefined && (target.fingerprint === fingerprint || target.nextFingerprint === fingerprint);
  }

  /** By a person, here. */
  isRevoked(name: string): boolean {
    return this.#targets.get(name)?.revokedAtMs !== undefined;
  }

  /** Faults: PAIRING_*, WIRE_*, TARGET_UNREACHABLE. What was before stays as it was, then. */
  async pair(token: string): Promise<PairedTarget> {
    const facts = readToken(token);
    const { targetName: name, host, port, fingerprint } = facts;
    const known = this.#targets.get(name);
    // A target that has not heard of the newest one yet knows this source by the one before.
    const own = known?.knownFingerprint === undefined ? this.#certificate.newest : this.#address(known).certificate!;
    const pinned = await this.#prove(facts, own);
    const target: PairedTarget = {
      name, host, port, fingerprint, pairedAtMs: nodeClock.nowMs(),
      ...(pinned === null ? { secretHex: facts.secret.toString('hex') } : { knownFingerprint: pinned }),
    };
    const before = this.#linked.get(name);
    await this.#change(name, () => target);
    await before?.link.close();
    const { link } = this.#link(target);
    if (before !== undefined) await this.#o.onRelinked(name);
    try {
      // By the certificate alone, as from now on.
      await link.session(AbortSignal.timeout(pairLimitMs));
    } catch (error) {
      throw link.report().lastFault === null ? error : new Fault('TARGET_UNREACHABLE', `${name} is paired, and cannot be connected now: ${link.report().lastFault!.message}`, {}, error);
    }
    return target;
  }

  /** The connection ends at once, and there is none before it is paired anew. Fault PAIRING_UNKNOWN. */
  async revoke(which: string): Promise<{ readonly name: string }> {
    const target = this.#targets.get(which) ?? [...this.#targets.values()].find(({ fingerprint }) => /^[0-9a-f]{8,64}$/.test(which) && fingerprint.startsWith(which));
    if (target === undefined) throw new Fault('PAIRING_UNKNOWN', `no target ${which} is paired here`, { which });
    await this.#change(target.name, (known) => ({ ...known, revokedAtMs: known.revokedAtMs ?? nodeClock.nowMs() }));
    this.#sessions.get(target.name)?.close();
    this.#o.log.warn({ target: target.name }, `the pairing with ${target.name} is revoked`);
    await this.#promoteWhenKnown();
    return { name: target.name };
  }

  /** Begins to give this source another certificate. `isNow`: the one before is dropped at once; targets that do not have the new one must be paired anew. */
  async rotate(isNow: boolean): Promise<SourceRotationReport> {
    const { own } = await readTlsFiles(this.#o.tls);
    await this.#certificate.begin(this.#o.name, own);
    for (const [name, session] of this.#sessions) this.#announce(name, session);
    if (isNow) await this.#certificate.promote();
    else await this.#promoteWhenKnown();
    return this.certificate();
  }

  certificate(): SourceRotationReport {
    return { ...this.#certificate.report(), awaited: this.#awaited() };
  }

  report(): SourcePairingsReport {
    const newest = fingerprintOf(this.#certificate.newest.cert);
    return {
      certificate: this.certificate(),
      targets: [...this.#targets.values()].map(({ name, host, port, fingerprint, nextFingerprint, pairedAtMs, lastUseAtMs, revokedAtMs, secretHex, knownFingerprint }) => ({
        name, address: `${host}:${port}`, fingerprint, nextFingerprint: nextFingerprint ?? null, pairedAtMs: pairedAtMs ?? null, revokedAtMs: revokedAtMs ?? null,
        lastUseAtMs: this.#sessions.has(name) ? nodeClock.nowMs() : lastUseAtMs ?? null, isBySecret: secretHex !== undefined, hasNewest: knownFingerprint === newest,
      })),
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#linked.values()].map(({ link }) => link.close()));
    await this.#changing;
  }

  #link(target: PairedTarget): Linked {
    const { name } = target;
    this.#targets.set(name, target);
    const address = (): TargetAddress => this.#address(this.#targets.get(name)!);
    const link = openTargetLink({
      ...address(), name, clock: nodeClock, random: nodeRandom, log: this.#o.log, gate: this.#o.gate?.(name) ?? null,
      // Certificates and pins are those of the moment.
      connect: async (_, deps, signal) => {
        if (this.#targets.get(name)?.revokedAtMs !== undefined) throw new Fault('PAIRING_REVOKED', `the pairing with ${name} was revoked here`);
        const session = await connectTarget(address(), deps, signal);
        await this.#settle(name, session);
        return session;
      },
    });
    const linked = { target, link, encoder: new Encoder({ clock: nodeClock }), passes: new PassTurns(), turns: new CycleTurns(nodeClock) };
    this.#linked.set(name, linked);
    return linked;
  }

  #address({ host, port, fingerprint, nextFingerprint, secretHex, knownFingerprint }: PairedTarget): TargetAddress {
    const next = this.#certificate.next;
    const certificate = next !== null && knownFingerprint === fingerprintOf(next.cert) ? next : this.#certificate.current;
    return {
      host, port, fingerprint, nextFingerprint, certificate, sourceId: this.#o.sourceId, sourceName: this.#o.name,
      ...(secretHex === undefined ? {} : { secret: Buffer.from(secretHex, 'hex') }), ...(this.#ca === null ? {} : { ca: this.#ca }),
    };
  }

  /** Uses the invitation up. Returns the fingerprint that the target has pinned; null: it is of an earlier release and pins none. */
  async #prove({ host, port, fingerprint, secret, targetName }: PairingToken, certificate: OwnCertificate): Promise<string | null> {
    const over = AbortSignal.timeout(pairLimitMs);
    const address: TargetAddress = { host, port, fingerprint, secret, certificate, sourceId: this.#o.sourceId, sourceName: this.#o.name, ...(this.#ca === null ? {} : { ca: this.#ca }) };
    for (;;) {
      try {
        const session = await connectTarget(address, { clock: nodeClock, random: nodeRandom, limits: sessionLimits }, over);
        session.close();
        return session.handshake.paired;
      } catch (error) {
        if (!over.aborted && !isFault(error, 'TARGET_UNREACHABLE') && !isFault(error, 'WIRE_SILENT')) throw error;
        // Rejects when the time is over, which the next look says.
        await nodeClock.delay(pairPaceMs, over).catch(() => undefined);
        if (over.aborted) throw new Fault('TARGET_UNREACHABLE', `target ${targetName} at ${host}:${port} could not be paired with: ${isFault(error) ? error.message : 'no answer'}`, {}, error);
      }
    }
  }

  /** What a new session says about both certificates is noted, and what is pending goes on over it. What cannot be noted now is tried again with the next session. */
  async #settle(name: string, session: WireSession): Promise<void> {
    const { shown, paired } = session.handshake;
    const atMs = nodeClock.nowMs();
    try {
      await this.#change(name, (target) => {
        const { secretHex, nextFingerprint, ...others } = target;
        const isNewShown = shown === nextFingerprint;
        const isSettled = paired === null || (secretHex === undefined && target.knownFingerprint === paired);
        if (!isNewShown && isSettled && atMs - (target.lastUseAtMs ?? 0) < usePaceMs) return target;
        return {
          ...others, fingerprint: shown, lastUseAtMs: atMs,
          ...(isNewShown || nextFingerprint === undefined ? {} : { nextFingerprint }),
          ...(paired === null ? secretHex === undefined ? {} : { secretHex } : { knownFingerprint: paired, pairedAtMs: target.pairedAtMs ?? atMs }),
        };
      });
      if (this.#targets.get(name)?.revokedAtMs !== undefined) session.close();
    } catch (error) {
      this.#o.log.error({ err: error, target: name }, 'what a target knows of this source could not be noted');
    }
    this.#sessions.set(name, session);
    void session.closed.then(() => { if (this.#sessions.get(name) === session) this.#sessions.delete(name); });
    session.onCertificate((message) => { void this.#heard(name, session, message); });
    this.#announce(name, session);
    await this.#promoteWhenKnown().catch((error: unknown) => this.#o.log.error({ err: error }, 'the next certificate could not be made the one in use'));
  }

  #announce(name: string, session: WireSession): void {
    const next = this.#certificate.next;
    if (next === null || session.handshake.paired === null || this.#targets.get(name)?.knownFingerprint === fingerprintOf(next.cert)) return;
    session.answer({ t: 'renew', ...signRenewal(next, { role: 'source', ...noncesOf(session) }) });
  }

  /** Never rejects. */
  async #heard(name: string, session: WireSession, message: CertificateMessage): Promise<void> {
    try {
      if (message.t === 'renewed') await this.#renewed(name, session, message);
      else await this.#toCome(name, session, message);
    } catch (error) {
      this.#o.log.error({ err: error, target: name, code: isFault(error) ? error.code : undefined }, 'a change of certificates came to nothing; it is tried again with the next connection');
    }
  }

  async #renewed(name: string, session: WireSession, { fingerprint, code, message }: Extract<CertificateMessage, { t: 'renewed' }>): Promise<void> {
    if (code !== undefined) return this.#o.log.error({ target: name, code }, `${name} does not take this source’s next certificate: ${message ?? ''}`);
    const next = this.#certificate.newest;
    if (fingerprint !== fingerprintOf(next.cert)) return;
    const before = this.#targets.get(name)?.knownFingerprint;
    await this.#change(name, (target) => ({ ...target, knownFingerprint: fingerprint }));
    if (before !== undefined && before !== fingerprint) session.answer({ t: 'retire', fingerprint: before });
    this.#o.log.info({ target: name, fingerprint }, `${name} has this source’s next certificate`);
    await this.#promoteWhenKnown();
  }

  async #toCome(name: string, session: WireSession, message: Extract<CertificateMessage, { t: 'renewal' }>): Promise<void> {
    const fingerprint = fingerprintOf(checkRenewal(message, { role: 'target', ...noncesOf(session) }));
    await this.#change(name, (target) => (target.nextFingerprint === fingerprint || target.fingerprint === fingerprint ? target : { ...target, nextFingerprint: fingerprint }));
    session.answer({ t: 'renewalNoted', fingerprint });
    this.#o.log.info({ target: name, fingerprint }, `${name} is going to show another certificate`);
  }

  #awaited(): string[] {
    const next = this.#certificate.next;
    if (next === null) return [];
    return [...this.#targets.values()].filter((one) => one.revokedAtMs === undefined && one.knownFingerprint !== fingerprintOf(next.cert)).map(({ name }) => name);
  }

  async #promoteWhenKnown(): Promise<void> {
    if (this.#certificate.next !== null && this.#awaited().length === 0) await this.#certificate.promote();
  }

  #change(name: string, change: (target: PairedTarget) => PairedTarget): Promise<void> {
    const turn = this.#changing.then(async () => {
      const known = this.#targets.get(name);
      const next = change(known ?? {} as PairedTarget);
      if (next === known) return;
      await this.#o.state.putTarget(next);
      this.#targets.set(name, next);
    });
    this.#changing = turn.catch(() => undefined);
    return turn;
  }
}

function noncesOf({ handshake: { sourceNonce, targetNonce } }: WireSession): { readonly sourceNonce: string; readonly targetNonce: string } {
  return { sourceNonce, targetNonce };
}
