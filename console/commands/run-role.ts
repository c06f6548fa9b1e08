/**
 * `source run` and `target run`: a role as a process. Starts the role, then its control socket, says that it is ready, waits
 * for SIGTERM or SIGINT, closes in the reverse order. It knows nothing of what a role does. A bug anywhere ends the process
 * with exit code 70, and the service manager starts it anew: state that was taken for impossible is not worked on with.
 */
import type { Logger } from 'pino';
import type { StartSource } from '../../daemon/operations.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import type { StartTarget } from '../../replica-target/operations.ts';
import type { Config } from '../config/config.ts';
import { SourceClient, TargetClient } from '../control-client.ts';
import { openSourceControl, openTargetControl, type Control } from '../control.ts';
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
  const running = await startRole(config, log, version);
  log.info({ control: config.controlPath }, 'ready');
  notifier.ready(() => livenessOf(config));
  log.info({ signal: await stopped }, 'stopping');
  notifier.stopping();
  await closeInTime(running, log);
  log.info('stopped');
}

async function startRole(config: Config, log: Logger, version: string): Promise<RunningRole> {
  switch (config.role) {
    case 'source': {
      // The other role's code is never loaded: its native parts may be missing on this host.
      const { startSource }: { startSource: StartSource } = await import('../../daemon/source.ts');
      const role = await startSource(config.options, { log, version, askChanges: (controlPath, groupId, since, point) => new TargetClient(controlPath).changedSince(groupId, since, point) });
      return { control: await orClose(role, openSourceControl(config.controlPath, role.operations, log)), close: () => role.close() };
    }
    case 'target': {
      const { startTarget }: { startTarget: StartTarget } = await import('../../replica-target/target.ts');
      const role = await startTarget(config.options, { log, version, controlPath: config.controlPath, ...(config.localSourcePath === null ? {} : { localSource: localSourceAt(config.localSourcePath) }) });
      return { control: await orClose(role, openTargetControl(config.controlPath, role.operations, log)), close: () => role.close() };
    }
    default: return config satisfies never;
  }
}

function livenessOf(config: Config): Promise<string | null> {
  const { controlPath, options: { dataFolder } } = config;
  return config.role === 'source'
    ? askLiveness({ report: () => new SourceClient(controlPath).report(), folders: [dataFolder, config.options.spool.folder], limitMs: livenessMsMax })
    : askLiveness({ report: () => new TargetClient(controlPath).report(), folders: [dataFolder], limitMs: livenessMsMax });
}

async function orClose(role: { close(): Promise<void> }, opening: Promise<Control>): Promise<Control> {
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
