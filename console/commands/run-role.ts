/**
 * `source run` and `target run`: a role as a process. Starts the role, then its control socket, says that it is ready, waits
 * for SIGTERM or SIGINT, closes in the reverse order. It knows nothing of what a role does. A bug anywhere ends the process
 * with exit code 70, and the service manager starts it anew: state that was taken for impossible is not worked on with.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { RunningSource, StartSource } from '../../daemon/operations.ts';
import { auditFolder, type AuditEntry } from '../../host/audit-format.ts';
import { AuditTrail, type AuditNoter } from '../../host/audit-trail.ts';
import { ClockWatch } from '../../host/clock-watch.ts';
import { findAccount } from '../../host/node/account.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { capabilities, keepFromChildren } from '../../host/node/libc.ts';
import { preparePrivateFolder } from '../../host/node/private-folder.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { Fault } from '../../journal/fault.ts';
import type { OwnCertificate } from '../../journal/identity.ts';
import type { RunningTarget, StartTarget } from '../../replica-target/operations.ts';
import { ownCertificate, readCertificate } from '../api/certificate.ts';
import type { NetListen } from '../api/net-door.ts';
import type { ApiServices } from '../api/services.ts';
import type { Config, SourceConfig } from '../config/config.ts';
import { SourceClient, TargetClient } from '../control-client.ts';
import { openSourceControl, openTargetControl, type Control, type ControlOptions } from '../control.ts';
import { openDaemonSide, type DaemonSide } from '../daemon-side.ts';
import { askLiveness } from '../liveness.ts';
import { localSourceAt } from '../local-source.ts';
import { exitCodes } from '../exit-code.ts';
import { openLog } from '../log.ts';
import { openServiceNotifier } from '../service-notify.ts';
import { readVersion } from '../version.ts';

/** A daemon that needs longer to answer itself is taken for hung, ms. */
const livenessMsMax = 15_000;
/** What closing may take before the process ends regardless, below the 90 s after which systemd kills, ms. */
const closeMsMax = 30_000;

interface RunningRole { readonly control: Control; close(): Promise<void> }

/** Resolves when the role has been asked to end and has ended. Faults of starting are thrown. */
export async function runRole(config: Config): Promise<void> {
  const log = openLog(config.logLevel, config.role);
  const version = readVersion();
  endOnBugs(log);
  collectSeldom();
  const stopped = awaitStopSignal();
  const notifier = await openServiceNotifier(log);
  log.info({ config: config.path, version, pid: process.pid }, `${config.role} ${version} starts`);
  notifier.starting();
  const trail = await openTrail(config, log, version);
  const running = await orClose(trail, startRole(config, log, version, trail));
  log.info({ control: config.controlPath, ...(running.control.address === null ? {} : { api: running.control.address }) }, 'ready');
  notifier.ready(() => livenessOf(config));
  log.info({ signal: await stopped }, 'stopping');
  notifier.stopping();
  await closeInTime(running, log);
  await trail.close();
  log.info('stopped');
}

interface Trail extends AuditNoter { readonly read: NonNullable<ApiServices['readTrail']>; close(): Promise<void> }

/** The trail of this daemon, with its start, and what configures it, noted. */
async function openTrail(config: Config, log: Logger, version: string): Promise<Trail> {
  const folder = auditFolder(config.options.dataFolder);
  // A source's is passed through by QEMUs of other users, on their way to the spool.
  await preparePrivateFolder(config.options.dataFolder, config.role === 'source' ? 0o711 : 0o700);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await nodeDisk.syncFolder(config.options.dataFolder);
  const trail = await AuditTrail.open({ disk: nodeDisk, clock: nodeClock, folder, log });
  const digest = createHash('sha256').update(await readFile(config.path)).digest('hex');
  await trail.note({ who: { kind: 'itself' }, act: 'start', on: null, what: { role: config.role, version, config: config.path, configSha256: digest }, outcome: 'done' });
  const watch = new ClockWatch(nodeClock, trail);
  watch.start();
  return {
    note: (entry) => trail.note(entry),
    alarms: () => trail.alarms(),
    read: async (countMax) => {
      const entries: AuditEntry[] = [];
      const reading = await trail.read((entry) => {
        entries.push(entry);
        if (entries.length > 2 * countMax) entries.splice(0, entries.length - countMax);
      });
      return { reading, entries: entries.slice(-countMax) };
    },
    close: async () => {
      await watch.close();
      await trail.note({ who: { kind: 'itself' }, act: 'stop', on: null, what: {}, outcome: 'done' });
      await trail.close();
    },
  };
}

async function startRole(config: Config, log: Logger, version: string, audit: Trail): Promise<RunningRole> {
  switch (config.role) {
    case 'source': {
      // The other role's code is never loaded: its native parts may be missing on this host.
      const { startSource }: { startSource: StartSource } = await import('../../daemon/source.ts');
      const role = await startSource(config.options, { log, version, audit, askChanges: (controlPath, groupId, since, point) => new TargetClient(controlPath).changedSince(groupId, since, point) });
      return openBeside(config, role, log, version, async (side) => openSourceControl(config.controlPath, role.operations, log, { ...await controlOptions(config, version, null, audit, side), localTarget: await findLocalTarget(config) }));
    }
    case 'target': {
      // Guests that it boots must not be able to take off what keeps locked points from this very user.
      keepFromChildren(capabilities.linuxImmutable);
      const { startTarget }: { startTarget: StartTarget } = await import('../../replica-target/target.ts');
      const role = await startTarget(config.options, { log, version, audit, controlPath: config.controlPath, ...(config.localSourcePath === null ? {} : { localSource: localSourceAt(config.localSourcePath) }) });
      return openBeside(config, role, log, version, async (side) => openTargetControl(config.controlPath, role.operations, log, await controlOptions(config, version, role.certificate, audit, side)));
    }
    default: return config satisfies never;
  }
}

/** Fault CONFIG_INVALID. */
async function findLocalTarget({ path, localTarget }: SourceConfig): Promise<{ uid: number; gid: number; name: string } | null> {
  if (localTarget === null) return null;
  const account = await findAccount(localTarget.user);
  if (account === null) throw new Fault('CONFIG_INVALID', `${path}: localTarget.user: there is no user ${localTarget.user} on this host`, { path, user: localTarget.user });
  return { ...account, name: localTarget.name };
}

function livenessOf(config: Config): Promise<string | null> {
  const { controlPath, options: { dataFolder } } = config;
  return config.role === 'source'
    ? askLiveness({ report: () => new SourceClient(controlPath).report(), folders: [dataFolder, config.options.spool.folder], limitMs: livenessMsMax })
    : askLiveness({ report: () => new TargetClient(controlPath).report(), folders: [dataFolder], limitMs: livenessMsMax });
}

/** What the API keeps lies beside what the role keeps. `certificate`: the role's own; null: it has none, and one is made for the API. */
async function controlOptions({ api, options }: Config, version: string, certificate: OwnCertificate & Pick<NetListen, 'onShown'> | null, audit: Trail, side: DaemonSide): Promise<Pick<ControlOptions<never>, 'audit' | 'readTrail' | 'testAlerts'> & { readonly version: string; readonly folder: string; readonly listen: NetListen | null }> {
  const folder = join(options.dataFolder, 'api');
  const shared = { version, folder, audit, readTrail: audit.read, testAlerts: () => side.testAlerts() };
  if (api === null) return { ...shared, listen: null };
  return { ...shared, listen: { host: api.host, port: api.port, ...(api.tls !== null ? await readCertificate(api.tls) : certificate ?? await ownCertificate(folder, options.name)) } };
}

/** What watches the role ends before it does. */
async function openBeside(config: Config, role: RunningSource | RunningTarget, log: Logger, version: string, openControl: (side: DaemonSide) => Promise<Control>): Promise<RunningRole> {
  const side = await orClose(role, openDaemonSide(config, () => role.report(), log, version));
  const close = async (): Promise<void> => {
    await side.close();
    await role.close();
  };
  return { control: await orClose({ close }, openControl(side)), close };
}

async function orClose<T>(role: { close(): Promise<void> }, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    await role.close();
    throw error;
  }
}

function awaitStopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const stop = (signal: NodeJS.Signals): void => {
      resolve(signal);
      // A second one does not wait for anything.
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => process.exit(exitCodes.failed));
    };
    const once = (signal: NodeJS.Signals): void => {
      process.off('SIGTERM', once).off('SIGINT', once);
      stop(signal);
    };
    process.on('SIGTERM', once).on('SIGINT', once);
  });
}

async function closeInTime(running: RunningRole, log: Logger): Promise<void> {
  const timer = setTimeout(() => {
    log.error({ limitMs: closeMsMax }, 'closing takes too long: ended in the middle of it, which the next start repairs');
    process.exit(exitCodes.failed);
  }, closeMsMax);
  await running.control.close();
  await running.close();
  clearTimeout(timer);
}

function endOnBugs(log: Logger): void {
  const end = (error: unknown): void => {
    log.fatal({ err: error }, 'a bug: ended, to be started anew');
    process.exit(exitCodes.bug);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}
