/**
 * The target role put together: state, store, ingest, failovers. It answers the operator (operations.ts) and makes the one
 * report; what arrives goes from ingest to the store without passing here.
 */
import { join } from 'node:path';
import { nodeClock } from '../host/node/clock.ts';
import { nodeDisk } from '../host/node/disk.ts';
import { nodeRandom } from '../host/node/random.ts';
import { Fault } from '../journal/fault.ts';
import { fingerprintOf, makeCertificate, makeToken } from '../journal/identity.ts';
import { Failovers } from './failover/failover.ts';
import { listenIngest, type Ingest } from './ingest/server.ts';
import type { FailoverRequest, FailoverResult, RunningTarget, TargetDeps, TargetOperations, TargetOptions, TokenResult } from './operations.ts';
import type { TargetReport } from './report.ts';
import { openRegistry } from './store/registry.ts';
import type { GroupRegistry, GroupStore, StoredPoint } from './store/store.ts';
import { TargetState } from './target-state.ts';

class Target implements TargetOperations {
  readonly #options: TargetOptions;
  readonly #deps: TargetDeps;
  readonly #state: TargetState;
  readonly #failovers: Failovers;
  readonly #registry: GroupRegistry;
  readonly #ingest: Ingest;
  readonly #fingerprint: string;
  readonly #targetId: string;
  readonly #secrets: Buffer[];

  private constructor(
    options: TargetOptions, deps: TargetDeps,
    parts: { state: TargetState; failovers: Failovers; registry: GroupRegistry; ingest: Ingest; fingerprint: string; targetId: string; secrets: Buffer[] },
  ) {
    this.#options = options;
    this.#deps = deps;
    this.#state = parts.state;
    this.#failovers = parts.failovers;
    this.#registry = parts.registry;
    this.#ingest = parts.ingest;
    this.#fingerprint = parts.fingerprint;
    this.#targetId = parts.targetId;
    this.#secrets = parts.secrets;
  }

  static async start(options: TargetOptions, deps: TargetDeps): Promise<Target> {
    const state = new TargetState(options.dataFolder);
    await state.prepare();
    const identity = await state.identity(async () => ({ targetId: nodeRandom.bytes(16).toString('hex'), ...(await makeCertificate(options.name)) }));
    const failovers = new Failovers({ failover: options.failover, folder: join(options.dataFolder, 'failovers'), clock: nodeClock, log: deps.log });
    await failovers.open();
    const registry = await openRegistry({ disk: deps.disk ?? nodeDisk, clock: nodeClock, folder: state.groupsFolder, log: deps.log, options: { freeBytesMin: options.keepFreeBytes } });
    const secrets = await state.secrets();
    try {
      const ingest = await listenIngest({
        host: options.listen.host, port: options.listen.port, key: identity.key, cert: identity.cert, targetId: identity.targetId, targetName: options.name,
        registry, secrets: () => secrets, clock: nodeClock, random: nodeRandom, log: deps.log,
      });
      return new Target(options, deps, { state, failovers, registry, ingest, fingerprint: fingerprintOf(identity.cert), targetId: identity.targetId, secrets });
    } catch (error) {
      await registry.close();
      throw error;
    }
  }

  report(): TargetReport {
    return {
      role: 'target',
      version: this.#deps.version,
      atMs: nodeClock.nowMs(),
      address: this.#advertised(),
      fingerprint: this.#fingerprint,
      sources: this.#ingest.sources(),
      groups: this.#registry.groups().map((group) => group.report()),
      failovers: this.#failovers.report(),
      refusals: this.#ingest.refusals(),
      memoryRssBytes: process.memoryUsage.rss(),
    };
  }

  async points(group: string): Promise<readonly StoredPoint[]> {
    return this.#group(group).points();
  }

  async token(): Promise<TokenResult> {
    const secret = nodeRandom.bytes(32);
    await this.#state.addSecret(secret, nodeClock.nowMs());
    this.#secrets.push(secret);
    const { host, port } = this.#address();
    const token = makeToken({ host, port, fingerprint: this.#fingerprint, secret, targetId: this.#targetId, targetName: this.#options.name });
    return { token, address: this.#advertised(), fingerprint: this.#fingerprint };
  }

  failover(request: FailoverRequest): Promise<FailoverResult> {
    return this.#failovers.failOver(this.#group(request.group), request);
  }

  stopFailover(group: string, isRolledBack: boolean): Promise<void> {
    return this.#failovers.stop(this.#group(group), isRolledBack);
  }

  async seedFrom(group: string, disk: number, imagePath: string): Promise<void> {
    await this.#registry.seedFrom(group, disk, imagePath);
  }

  async close(): Promise<void> {
    await this.#ingest.close();
    await this.#registry.close();
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

export async function startTarget(options: TargetOptions, deps: TargetDeps): Promise<RunningTarget> {
  const target = await Target.start(options, deps);
  return { operations: target, report: () => target.report(), close: () => target.close() };
}
