/**
 * Config files of both roles: reads, checks, fills in what was left out, and refuses with all problems at once, each with
 * line, column and what is expected. What comes out are the roles' own plain options. It touches no file but the config.
 */
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, relative } from 'node:path';
import type { z } from 'zod';
import type { GuestOptions, SourceOptions } from '../../daemon/operations.ts';
import type { AlertOptions } from '../alerts/alert-options.ts';
import type { MetricsOptions } from '../metrics/metrics-server.ts';
import type { TlsPaths } from '../../host/node/tls-files.ts';
import { Fault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import type { TargetOptions } from '../../replica-target/operations.ts';
import { defaultRetention, type RetentionPolicy } from '../../replica-target/points/retention-plan.ts';
import { defaultScrub } from '../../replica-target/points/scrub.ts';
import { alertOptions, metricsOptions } from './alert-settings.ts';
import { defaultSuspicion, type SuspicionPolicy } from '../../replica-target/suspicion/suspicion-plan.ts';
import { failoverOptions, rehearseOptions, witnessOptions } from './failover-options.ts';
import { socketPathBytesMax, sourceShape, targetShape, type LogLevel, type SourceFile, type TargetFile } from './schema.ts';
import { YamlSource, type ConfigProblem } from './yaml-source.ts';

interface ConfigCommon {
  /** The file, as it was named. */
  readonly path: string;
  /** Unix socket of the operator's side. */
  readonly controlPath: string;
  /** Where operators reach it over the network, with tokens; null: nowhere. */
  readonly api: ApiListen | null;
  readonly logLevel: LogLevel;
  /** Where metrics are served; null: nowhere. */
  readonly metrics: MetricsOptions | null;
  /** Null: nobody is told. */
  readonly alerts: AlertOptions | null;
}

export interface ApiListen {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** PEM files in place of the daemon's own certificate. */
  readonly tls: { readonly certPath: string; readonly keyPath: string } | null;
}

export interface SourceConfig extends ConfigCommon {
  readonly role: 'source';
  readonly options: SourceOptions;
  /** The user as whom the target of this host runs, by name or number, and what that target is called; null: there is none, or it runs as this source's user or root. */
  readonly localTarget: { readonly user: string; readonly name: string } | null;
}
export interface TargetConfig extends ConfigCommon {
  readonly role: 'target';
  readonly options: TargetOptions;
  /** Control socket of this host's source role, which follows the guests that are started here; null: none does. */
  readonly localSourcePath: string | null;
}
export type Config = SourceConfig | TargetConfig;

/** Port of a target unless it says otherwise. */
export const defaultPort = 7228;
/** Port of the operators' API unless the config says otherwise; where one host plays both roles, one of them has to. */
const defaultApiPort = 7229;
/** Assigned to NBD by IANA. */
const defaultNbdPort = 10_809;
const defaultBudgetBytes = 4 * 1024 ** 3;
const defaultKeepFreeBytes = 1024 ** 3;
/** A config is a few hundred bytes; what is larger than this is another file. */
const fileBytesMax = 256 * 1024;

export function defaultConfigPath(role: Config['role']): string {
  return `/etc/afterimage/${role}.yaml`;
}

/** Fault CONFIG_INVALID, whose message has one `file:line:column: key: what` per line and whose facts hold `problems`. */
export async function loadConfig(path: string): Promise<Config> {
  let text: string;
  try {
    const bytes = await readFile(path);
    if (bytes.length > fileBytesMax) throw invalid(path, [{ line: 1, column: 1, key: '', message: `expected a config file, found ${bytes.length} bytes` }]);
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw unreadable(path, error);
  }
  return parseConfig(path, text);
}

export function parseConfig(path: string, text: string, hostName: string = hostname()): Config {
  const yaml = new YamlSource(text);
  if (yaml.problems.length > 0) throw invalid(path, yaml.problems);
  const { role } = yaml.value as { role?: unknown };
  switch (role) {
    case 'source': return sourceConfig(path, yaml, check(path, yaml, sourceShape), hostName);
    case 'target': return targetConfig(path, yaml, check(path, yaml, targetShape), hostName);
    default: throw invalid(path, [yaml.at(['role'], role === undefined ? 'is missing: expected `role: source` or `role: target`' : `expected source or target, found ${JSON.stringify(role)}`)]);
  }
}

function check<T>(path: string, yaml: YamlSource, shape: z.ZodType<T>): T {
  const parsed = shape.safeParse(yaml.value);
  if (parsed.success) return parsed.data;
  throw invalid(path, parsed.error.issues.flatMap((issue) => {
    const at = issue.path.map((step) => (typeof step === 'number' ? step : String(step)));
    if (issue.code !== 'unrecognized_keys') return [yaml.at(at, issue.message)];
    return issue.keys.map((key) => yaml.atKey([...at, key], `unknown key; ${knownKeys(shape, at)}`));
  }));
}

/** What may stand where an unknown key stood. */
function knownKeys(shape: z.ZodType, at: readonly (string | number)[]): string {
  let inner: unknown = shape;
  for (const step of at) {
    const { shape, valueType, element } = inner as { shape?: Record<string, unknown>; valueType?: unknown; element?: unknown };
    inner = unwrapped(shape === undefined ? valueType ?? element : shape[String(step)]);
  }
  return `expected one of ${Object.keys((inner as { shape?: object }).shape ?? {}).join(', ')}`;
}

function unwrapped(type: unknown): unknown {
  const optional = type as { unwrap?: () => unknown } | undefined;
  return optional?.unwrap?.() ?? type;
}

function sourceConfig(path: string, yaml: YamlSource, file: SourceFile, hostName: string): SourceConfig {
  const problems: ConfigProblem[] = [];
  const folder = file.spool?.folder ?? join(file.data, 'spool');
  // What lies in the spool is removed at will: it must not hold the data folder.
  if (isWithin(file.data, folder)) problems.push(yaml.at(['spool', 'folder'], 'expected a folder of its own, found one that holds the data folder'));
  const name = ownName(yaml, file.name, hostName, problems);
  const controlPath = ownControl(yaml, file.control, file.data, problems);
  const alerts = alertOptions(yaml, file, problems);
  for (const [index, { from, to }] of (file.limits ?? []).entries()) if ((from === undefined) !== (to === undefined)) problems.push(yaml.at(['limits', index], 'expected both `from` and `to`, or neither'));
  checkTls(yaml, file.tls, problems);
  if (problems.length > 0) throw invalid(path, problems);
  return {
    role: 'source', path, controlPath, localTarget: file.localTarget === undefined ? null : { user: file.localTarget.user, name: file.localTarget.name ?? name }, api: apiListen(file), logLevel: file.log?.level ?? 'info', metrics: metricsOptions(file), alerts,
    options: {
      name, dataFolder: file.data, ...tlsOptions(file.tls),
      spool: { folder, budgetBytes: file.spool?.budget ?? defaultBudgetBytes, keepFreeBytes: file.spool?.keepFree ?? defaultKeepFreeBytes },
      guests: Object.fromEntries(Object.entries(file.guests ?? {}).map(([guest, { agent, freezeLimit, app, consistency, pauseLimit, onLeaseLost }]) => [
        guest, guestOptions({ agentPath: agent, freezeLimitMs: freezeLimit, appEveryMs: app?.every, consistency, pauseMsMax: pauseLimit, onLeaseLost }),
      ])),
      limits: (file.limits ?? []).map(({ target, group, from, to, days, rate }) => ({ target, group, days, rateBytesPerSecond: rate, hours: from === undefined || to === undefined ? undefined : { fromMinute: from, toMinute: to } })),
      ...(file.witness === undefined ? {} : { witness: { ...witnessOptions(file.witness), onLeaseLost: file.witness.onLeaseLost ?? 'ignore' } }),
    },
  };
}

/** Without what was left out. */
function guestOptions(options: GuestOptions): GuestOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function targetConfig(path: string, yaml: YamlSource, file: TargetFile, hostName: string): TargetConfig {
  const problems: ConfigProblem[] = [];
  const overlayFolder = file.failover?.overlayFolder ?? join(file.data, 'overlays');
  if (isWithin(file.data, overlayFolder)) problems.push(yaml.at(['failover', 'overlayFolder'], 'expected a folder of its own, found one that holds the data folder'));
  const name = ownName(yaml, file.name, hostName, problems);
  const controlPath = ownControl(yaml, file.control, file.data, problems);
  checkTls(yaml, file.tls, problems);
  const nbd = nbdOptions(yaml, file, problems);
  const alerts = alertOptions(yaml, file, problems);
  const alone = file.witness !== undefined ? undefined : Object.entries(file.groups ?? {}).find(([, { automatic }]) => automatic !== undefined)?.[0];
  if (alone !== undefined) problems.push(yaml.at(['groups', alone, 'automatic'], 'expected a `witness` beside it: without one nobody can tell a host that is lost from one that cannot be reached'));
  if (problems.length > 0) throw invalid(path, problems);
  const port = file.listen?.port ?? defaultPort;
  return {
    role: 'target', path, controlPath, api: apiListen(file), localSourcePath: file.failover?.source ?? null, logLevel: file.log?.level ?? 'info', metrics: metricsOptions(file), alerts,
    options: {
      name, dataFolder: file.data, ...tlsOptions(file.tls),
      listen: { host: file.listen?.host ?? '0.0.0.0', port },
      advertise: { host: file.advertise?.host ?? hostName, port: file.advertise?.port ?? port },
      failover: failoverOptions(file, overlayFolder),
      ...(file.witness === undefined ? {} : { witness: witnessOptions(file.witness) }),
      rehearseEveryMs: rehearseOptions(file),
      nbd,
      retention: retentionOptions(file),
      ...(file.volume === undefined && file.sources === undefined ? {} : { volumes: { all: file.volume ?? null, sources: Object.fromEntries(Object.entries(file.sources ?? {}).map(([source, one]) => [source, one.volume])) } }),
      suspicion: suspicionOptions(file),
      scrub: { rateBytesPerSecond: file.scrub?.rate ?? defaultScrub.rateBytesPerSecond, everyMs: file.scrub?.every ?? defaultScrub.everyMs },
      keepFreeBytes: file.keepFree ?? defaultKeepFreeBytes,
    },
  };
}

function ownName(yaml: YamlSource, given: string | undefined, hostName: string, problems: ConfigProblem[]): string {
  const name = given ?? hostName.split('.')[0]!;
  if (!safeName.safeParse(name).success) problems.push(yaml.at(['name'], `is missing, and this host’s name (${JSON.stringify(hostName)}) cannot stand in: expected a name of letters, digits, dots, dashes and underscores`));
  return name;
}

function ownControl(yaml: YamlSource, given: string | undefined, data: string, problems: ConfigProblem[]): string {
  const path = given ?? join(data, 'control.sock');
  if (Buffer.byteLength(path) > socketPathBytesMax) problems.push(yaml.at(['data'], `a control socket in this folder would have a path longer than ${socketPathBytesMax} bytes: expected a shorter folder, or \`control\` with a shorter path`));
  return path;
}

function apiListen({ api }: Pick<SourceFile, 'api'>): ApiListen | null {
  if (api?.listen === undefined) return null;
  return { host: api.listen.host ?? '0.0.0.0', port: api.listen.port ?? defaultApiPort, tls: api.tls === undefined ? null : { certPath: api.tls.cert, keyPath: api.tls.key } };
}

/** A group's own settings stand before those of all groups, one by one. */
function retentionOptions({ retention, groups }: TargetFile): NonNullable<TargetOptions['retention']> {
  const policyOf = (...settings: readonly TargetFile['retention'][]): RetentionPolicy => {
    const of = <K extends keyof NonNullable<TargetFile['retention']>>(key: K): NonNullable<TargetFile['retention']>[K] | undefined => settings.map((one) => one?.[key]).find((value) => value !== undefined);
    const { windowMs, hourly, daily, weekly, monthly, budgetBytes } = defaultRetention;
    return {
      windowMs: of('window') ?? windowMs, hourly: of('hourly') ?? hourly, daily: of('daily') ?? daily, weekly: of('weekly') ?? weekly, monthly: of('monthly') ?? monthly,
      budgetBytes: of('budget') ?? budgetBytes, ...(of('lock') === undefined ? {} : { lockMs: of('lock')! }),
    };
  };
  return { all: policyOf(retention), groups: Object.fromEntries(Object.entries(groups ?? {}).map(([group, one]) => [group, policyOf(one.retention, retention)])) };
}

/** As for retention. */
function suspicionOptions({ suspicion, groups }: TargetFile): NonNullable<TargetOptions['suspicion']> {
  const policyOf = (...settings: readonly TargetFile['suspicion'][]): SuspicionPolicy => ({
    sensitivity: settings.map((one) => one?.sensitivity).find((value) => value !== undefined) ?? defaultSuspicion.sensitivity,
    holdMs: settings.map((one) => one?.hold).find((value) => value !== undefined) ?? defaultSuspicion.holdMs,
  });
  return { all: policyOf(suspicion), groups: Object.fromEntries(Object.entries(groups ?? {}).map(([group, one]) => [group, policyOf(one.suspicion, suspicion)])) };
}

function nbdOptions(yaml: YamlSource, file: TargetFile, problems: ConfigProblem[]): TargetOptions['nbd'] {
  const socketPath = file.nbd?.socket ?? join(file.data, 'points.sock');
  if (Buffer.byteLength(socketPath) > socketPathBytesMax) problems.push(yaml.at(['data'], `the socket for points in this folder would have a path longer than ${socketPathBytesMax} bytes: expected a shorter folder, or \`nbd.socket\` with a shorter path`));
  const listen = file.nbd?.listen;
  if (listen === undefined) return { socketPath, listen: null };
  // Over TCP nothing is served to strangers, so without either nobody could be served.
  if (listen.keys === undefined && (listen.clients ?? []).length === 0) problems.push(yaml.at(['nbd', 'listen'], 'expected `keys` (a file of TLS keys) or `clients` (fingerprints of certificates), or both: nobody is served without'));
  return { socketPath, listen: { host: listen.host ?? '0.0.0.0', port: listen.port ?? defaultNbdPort, keysPath: listen.keys ?? null, clientFingerprints: listen.clients ?? [] } };
}

/** One is of no use without the other. */
function checkTls(yaml: YamlSource, tls: SourceFile['tls'], problems: ConfigProblem[]): void {
  if ((tls?.cert === undefined) !== (tls?.key === undefined)) problems.push(yaml.at(['tls'], 'expected both `cert` and `key`, or neither'));
}

function tlsOptions(tls: SourceFile['tls']): { readonly tls?: TlsPaths } {
  return tls === undefined ? {} : { tls };
}

/** Whether `path` is `folder` or lies within it. */
function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way === '' || !(way === '..' || way.startsWith('../'));
}

function invalid(path: string, problems: readonly ConfigProblem[]): Fault {
  const sorted = [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
  const lines = sorted.map(({ line, column, key, message }) => `${path}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`);
  return new Fault('CONFIG_INVALID', lines.join('\n'), { path, problems: sorted });
}

function unreadable(path: string, error: unknown): unknown {
  if (error instanceof Fault) return error;
  const { code } = error as NodeJS.ErrnoException;
  const why = error instanceof TypeError ? 'it is not UTF-8 text'
    : code === 'ENOENT' ? 'there is no such file'
    : code === 'EACCES' ? 'this user may not read it'
    : code === 'EISDIR' ? 'it is a folder'
    : null;
  return why === null ? error : new Fault('CONFIG_INVALID', `${path}: cannot read the configuration: ${why}`, { path, error: code ?? 'EILSEQ', problems: [] }, error);
}
