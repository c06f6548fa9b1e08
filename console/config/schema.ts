/**
 * The shapes of both config files. Every field says in one phrase what is expected of it, and that phrase is the whole of
 * its error message: "expected a size with its unit, such as 4GiB". Unknown keys are errors everywhere. Nothing here reads
 * files or knows line numbers.
 */
import { isAbsolute, normalize } from 'node:path';
import { z } from 'zod';
import { weekdays } from '../../daemon/stream/throttle-plan.ts';
import { safeName } from '../../journal/wire.ts';
import { parsePlace } from '../../qemu/guest-place.ts';
import { networkName } from '../../replica-target/failover/network-plan.ts';
import { sensitivities } from '../../replica-target/suspicion/suspicion-plan.ts';
import { readDurationMs, readHostPort, readRate, readSizeBytes, readVolume } from './quantity.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Bytes of a unix socket's path, without the terminating zero (unix(7), sun_path). */
export const socketPathBytesMax = 107;
/** Below this hardly a delta image fits, and every cycle would go in rounds. */
const budgetBytesMin = 16 * 1024 ** 2;

/** A journal has segments of 64 MiB, and one is begun before another can go. */
const retentionBytesMin = 256 * 1024 ** 2;

/** A field that `read` takes or refuses; refused values are shown beside what was expected. */
function field<T>(expected: string, read: (value: unknown) => T | undefined) {
  return z.unknown().transform((value, context): T => {
    const taken = read(value);
    if (taken !== undefined) return taken;
    context.addIssue({ code: 'custom', message: value === undefined ? `is missing: expected ${expected}` : `expected ${expected}, found ${show(value)}` });
    return z.NEVER;
  });
}

/** As {@link field}, for a key that may be left out. */
function optional<T>(expected: string, read: (value: unknown) => T | undefined) {
  return z.unknown().transform((value, context): T | undefined => {
    if (value === undefined) return undefined;
    const taken = read(value);
    if (taken === undefined) context.addIssue({ code: 'custom', message: `expected ${expected}, found ${show(value)}` });
    return taken;
  }).optional();
}

/** As {@link field}, of what may hold a secret: a refused value is not shown. */
function unshown<T>(expected: string, read: (value: unknown) => T | undefined) {
  return z.unknown().transform((value, context): T => {
    const taken = read(value);
    if (taken !== undefined) return taken;
    context.addIssue({ code: 'custom', message: value === undefined ? `is missing: expected ${expected}` : `expected ${expected}` });
    return z.NEVER;
  });
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function ofText<T>(read: (text: string) => T | undefined): (value: unknown) => T | undefined {
  return (value) => (typeof value === 'string' ? read(value) : undefined);
}

function isPattern(text: string): boolean {
  try {
    return text !== '' && new RegExp(text, 'm') instanceof RegExp;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

function oneOf<const T extends string>(values: readonly T[]): readonly [string, (value: unknown) => T | undefined] {
  return [values.length === 2 ? values.join(' or ') : `one of ${values.join(', ')}`, (value) => values.find((known) => known === value)];
}

function sizeAtLeast(min: number, expected: string): readonly [string, (value: unknown) => number | undefined] {
  return [expected, ofText((text) => {
    const sizeBytes = readSizeBytes(text);
    return sizeBytes !== undefined && sizeBytes >= min ? sizeBytes : undefined;
  })];
}

const name = ['a name of at most 63 letters, digits, dots, dashes and underscores', ofText((text) => (safeName.safeParse(text).success ? text : undefined))] as const;
/** As Debian's adduser takes them, or a number. */
const user = ['a user’s name or number', (value: unknown) => (typeof value === 'number' ? (Number.isInteger(value) && value >= 0 ? String(value) : undefined) : ofText((text) => (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$/.test(text) ? text : undefined))(value))] as const;
/** A zero byte in a path would be refused by every system call. */
const path = ['an absolute path', ofText((text) => (isAbsolute(text) && !text.includes('\0') ? tidied(text) : undefined))] as const;
const duration = (minMs: number, maxMs: number, expected: string) => [expected, ofText((text) => {
  const ms = readDurationMs(text);
  return ms !== undefined && ms >= minMs && ms <= maxMs ? ms : undefined;
})] as const;
/** Each such point freezes the guest for a moment. */
const appEvery = duration(60_000, 31 * 86_400_000, 'a duration from 1m to 31d, such as 1h');
/** A service that waits for its disk longer than this is taken for dead by what watches it. */
const pauseLimit = duration(50, 30_000, 'a duration from 50ms to 30s, such as 1s');
const freezeLimit = duration(500, 30_000, 'a duration from 500ms to 30s, such as 5s');
const socketPath = [`an absolute path of at most ${socketPathBytesMax} bytes`, ofText((text) => (isAbsolute(text) && !text.includes('\0') && Buffer.byteLength(tidied(text)) <= socketPathBytesMax ? tidied(text) : undefined))] as const;
const size = sizeAtLeast(0, 'a size with its unit, such as 1GiB');
const budget = sizeAtLeast(budgetBytesMin, 'a size of at least 16MiB with its unit, such as 4GiB');
const port = ['a port from 0 (any free one) to 65535', (value: unknown) => (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 65_535 ? value : undefined)] as const;
const listenHost = ['an address or host name to listen on, such as 0.0.0.0', ofText((text) => (readHostPort(text)?.port === null ? text : undefined))] as const;
const fingerprints = ['a list of SHA-256 fingerprints of client certificates, 64 hex digits each', (value: unknown) => (Array.isArray(value) ? ofAll(value, readFingerprint) : undefined)] as const;
const advertise = ['host or host:port as sources reach this target', ofText(readHostPort)] as const;

function tidied(text: string): string {
  return normalize(text).replace(/(.)\/+$/, '$1');
}

/** Undefined when any is. */
function ofAll<T>(values: readonly unknown[], read: (value: unknown) => T | undefined): readonly T[] | undefined {
  const taken = values.flatMap((value) => { const one = read(value); return one === undefined ? [] : [one]; });
  return taken.length === values.length ? taken : undefined;
}

function readUrl(value: unknown): string | undefined {
  if (typeof value !== 'string' || !URL.canParse(value)) return undefined;
  const { protocol, username, pathname } = new URL(value);
  return ['http:', 'https:'].includes(protocol) && username === '' && pathname === '/' ? value : undefined;
}

/** With or without colons, as openssl and certtool print it. */
function readFingerprint(value: unknown): string | undefined {
  const digits = typeof value === 'string' ? value.replaceAll(':', '').toLowerCase() : '';
  return /^[0-9a-f]{64}$/.test(digits) ? digits : undefined;
}

/** An object whose message for a wrong type names its keys. */
function section<const T extends z.ZodRawShape>(shape: T) {
  const expected = `expected the keys ${Object.keys(shape).join(', ')}`;
  return z.strictObject(shape, { error: (issue) => (issue.code === 'invalid_type' ? `${expected}, found ${show(issue.input)}` : undefined) });
}

const window = duration(0, 366 * 86_400_000, 'a duration of at most 366d, such as 4h');
/** What is locked takes its space until the lock ends, whatever happens. */
const lockTime = duration(60_000, 3660 * 86_400_000, 'a duration from 1m to 3660d, such as 7d');
const periods = ['a whole number from 0 to 1000', (value: unknown) => (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 1000 ? value : undefined)] as const;
const retention = section({
  window: optional(...window), lock: optional(...lockTime), hourly: optional(...periods), daily: optional(...periods), weekly: optional(...periods), monthly: optional(...periods),
  budget: optional(...sizeAtLeast(retentionBytesMin, 'a size of at least 256MiB with its unit, such as 100GiB')),
}).optional();

const failoverNetwork = ['none, user or bridge:NAME', (value: unknown) => { const named = networkName.safeParse(value).data; return named === 'isolated' ? undefined : named; }] as const;
/** Less than this is a few records. */
const volumeBytesMin = 64 * 1024 ** 2;
const volume = ['a size of at least 64MiB an hour or a day, such as 100GiB/day', ofText((text) => { const limit = readVolume(text); return limit !== undefined && limit.bytes >= volumeBytesMin ? limit : undefined; })] as const;
const scrubRate = ['a size a second with its unit, such as 20MiB/s; 0 for none', (value: unknown) => (value === 0 || typeof value === 'string' ? readRate(String(value)) : undefined)] as const;
const checkEvery = duration(60_000, 31 * 86_400_000, 'a duration from 1m to 31d, such as 6h');
const rehearseEvery = duration(60_000, 366 * 86_400_000, 'a duration from 1m to 366d, such as 7d');
const scrubEvery = duration(3_600_000, 366 * 86_400_000, 'a duration from 1h to 366d, such as 7d');

const suspicion = section({
  sensitivity: optional(...oneOf(['off', ...sensitivities])),
  hold: optional(...duration(3_600_000, 31 * 86_400_000, 'a duration from 1h to 31d, such as 7d')),
}).optional();

const log = section({ level: optional(...oneOf(logLevels)) }).optional();

/** The operators' API over the network; left out: on the control socket alone. */
const api = section({ listen: section({ host: optional(...listenHost), port: optional(...port) }).optional(), tls: section({ cert: field(...path), key: field(...path) }).optional() }).optional();

const onLeaseLost = oneOf(['pause', 'ignore']);
const leaseTime = duration(3_000, 3_600_000, 'a duration from 3s to 1h, such as 30s');
const endpoints = ['a list of addresses such as https://etcd1.example.org:2379', (value: unknown) => (Array.isArray(value) && value.length > 0 ? ofAll(value, readUrl) : undefined)] as const;
const keyPrefix = ['a path of keys such as /afterimage/', ofText((text) => (/^\/[A-Za-z0-9/_.-]*\/$/.test(text) && text.length <= 200 ? text : undefined))] as const;
const text = ['a text', ofText((given) => (given === '' ? undefined : given))] as const;
const etcd = section({ endpoints: field(...endpoints), prefix: optional(...keyPrefix), ca: optional(...path), cert: optional(...path), key: optional(...path), user: optional(...text), passwordFile: optional(...path) });
const witness = { etcd, ttl: optional(...leaseTime) };

/** By name; they need not be protected yet. */
const guests = z.record(
  safeName,
  section({ agent: optional(...socketPath), freezeLimit: optional(...freezeLimit), app: section({ every: field(...appEvery) }).optional(), consistency: optional(...oneOf(['strict', 'per-guest'])), pauseLimit: optional(...pauseLimit), onLeaseLost: optional(...onLeaseLost) }),
  {
    error: (issue) => {
      if (issue.code === 'invalid_key') return `expected ${name[0]} for a guest`;
      return issue.code === 'invalid_type' ? `expected names of guests with their settings, found ${show(issue.input)}` : undefined;
    },
  },
).optional();

/** By name; they need not be here yet. */
const startOrder = ['a whole number from 0 to 1000', (value: unknown) => (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 1000 ? value : undefined)] as const;
const startDelay = duration(0, 3_600_000, 'a duration of at most 1h, such as 10s');
const readyWithin = duration(1000, 3_600_000, 'a duration from 1s to 1h, such as 2m');
const pattern = ['a regular expression', ofText((text) => isPattern(text) ? text : undefined)] as const;
const commandLine = ['a program and its arguments, as a list of texts', (value: unknown) => (Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === 'string' && one !== '') ? value as string[] : undefined)] as const;
const isTrue = ['true', (value: unknown) => (value === true ? true : undefined)] as const;
const ready = section({ agent: optional(...isTrue), serial: optional(...pattern), command: optional(...commandLine), within: optional(...readyWithin) }).optional();
const rehearse = section({ every: field(...rehearseEvery) }).optional();

const vmid = ['a number from 100 to 999999999', (value: unknown) => (typeof value === 'number' && parsePlace(`pve://${value}`) !== undefined ? value : undefined)] as const;
/** Proxmox VE's own rule (`pve-storage-id`). */
const pveStorage = ['the name of a storage such as local', ofText((given) => (/^[a-z][a-z0-9._-]*[a-z0-9]$/i.test(given) ? given : undefined))] as const;

const networkExpected = 'none, user, isolated or bridge:NAME';
const network = [networkExpected, (value: unknown) => networkName.safeParse(value).data] as const;
const macs = z.record(z.string(), field(...network)).transform((map, context) => Object.fromEntries(Object.entries(map).map(([key, choice]) => {
  if (key !== 'default' && !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(key)) context.addIssue({ code: 'custom', path: [key], message: 'expected `default` or a MAC address such as 52:54:00:12:34:56' });
  return [key.toLowerCase(), choice];
}))).optional();
const networks = section({ failover: macs, test: macs }).optional();
const hookWithin = duration(1000, 3_600_000, 'a duration from 1s to 1h, such as 30s');
const hook = section({ command: field(...commandLine), within: optional(...hookWithin) }).optional();
const hooks = section({ fence: hook, beforeStart: hook, afterStart: hook, afterCommit: hook, afterRollBack: hook }).optional();
const automatic = section({ after: field(...duration(0, 86_400_000, 'a duration of at most 1d, such as 30s')) }).optional();

const groups = z.record(safeName, section({ retention, suspicion, rehearse, networks, hooks, automatic, guests: z.record(safeName, section({ order: optional(...startOrder), delay: optional(...startDelay), ready, vmid: optional(...vmid) })).optional() }), {
  error: (issue) => {
    if (issue.code === 'invalid_key') return `expected ${name[0]} for a group`;
    return issue.code === 'invalid_type' ? `expected names of groups with their settings, found ${show(issue.input)}` : undefined;
  },
}).optional();

const metrics = section({ listen: section({ host: optional(...listenHost), port: field(...port) }) }).optional();

const webUrl = ['an http or https address without a password in it', (value: unknown) => (typeof value === 'string' && URL.canParse(value) && ['http:', 'https:'].includes(new URL(value).protocol) && new URL(value).username === '' ? value : undefined)] as const;
const alertCodes = ['a list of codes such as RPO_LATE', (value: unknown) => (Array.isArray(value) && value.length > 0 ? ofAll(value, (one) => (typeof one === 'string' && /^[A-Z][A-Z_]{1,39}$/.test(one) ? one : undefined)) : undefined)] as const;
const webhooks = z.array(section({ url: unshown(...webUrl), secretFile: optional(...path), events: optional(...alertCodes) }), { error: 'expected a list, each with the keys url, secretFile, events' }).max(16, 'expected at most 16 webhooks').optional();
const readAddress = (value: unknown): string | undefined => (typeof value === 'string' && /^[^\s@<>,;:"]+@[^\s@<>,;:"]+$/.test(value) ? value : undefined);
const emailAddress = ['an e-mail address such as afterimage@example.org', readAddress] as const;
const emailAddresses = ['a list of e-mail addresses', (value: unknown) => (Array.isArray(value) && value.length > 0 && value.length <= 32 ? ofAll(value, readAddress) : undefined)] as const;
const smtp = ['host or host:port of an SMTP server', ofText(readHostPort)] as const;
const email = section({
  smtp: field(...smtp), tls: optional(...oneOf(['starttls', 'tls', 'none'])), from: field(...emailAddress), to: field(...emailAddresses), userFile: optional(...path), passwordFile: optional(...path), ca: optional(...path),
}).optional();
const timeOfDay = ['a time of day in quotes, such as "22:00"', ofText((given) => {
  const [, hours, minutes] = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(given) ?? [];
  return hours === undefined ? undefined : Number(hours) * 60 + Number(minutes);
})] as const;
const dayNames = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];
const days = ['a list of days such as [sat, sun]', (value: unknown) => (Array.isArray(value) && value.length > 0 ? ofAll(value, (one) => { const day = dayNames.indexOf(String(one)); return day < 0 ? undefined : day; }) : undefined)] as const;
const quietHours = section({ from: field(...timeOfDay), to: field(...timeOfDay), days: optional(...days), errors: optional(...oneOf(['pass', 'hold'])) }).optional();
const heartbeatEvery = duration(10_000, 86_400_000, 'a duration from 10s to 1d, such as 1m');
const repeatEvery = duration(300_000, 31 * 86_400_000, 'a duration from 5m to 31d, such as 1d');
const settle = duration(1_000, 3_600_000, 'a duration from 1s to 1h, such as 1m');
const times = ['a number from 1 to 1000', (value: unknown) => (typeof value === 'number' && value >= 1 && value <= 1000 ? value : undefined)] as const;
const absence = duration(1_000, 86_400_000, 'a duration from 1s to 1d, such as 5m');
const ahead = duration(3_600_000, 366 * 86_400_000, 'a duration from 1h to 366d, such as 30d');
const rules = section({
  rpo: section({ warn: optional(...times), error: optional(...times) }).optional(), absent: optional(...absence), proven: optional(...ahead), certificate: optional(...ahead), volumeFull: optional(...ahead),
}).optional();
const alerts = section({
  webhook: webhooks, email, command: optional(...commandLine), quietHours, repeatEvery: optional(...repeatEvery), settle: optional(...settle),
  heartbeat: section({ url: unshown(...webUrl), every: optional(...heartbeatEvery) }).optional(), rules,
}).optional();
/** Below this a first sync that gets an eighth of it would be given up by QEMU. */
const limitRateMin = 1024 ** 2;
const limitRate = ['a size a second of at least 1MiB/s, such as 20MiB/s', ofText((given) => { const rate = readRate(given); return rate !== undefined && rate >= limitRateMin ? rate : undefined; })] as const;
/** Minutes after midnight. */
const hour = ['a time of day such as 08:00', ofText((given) => { const found = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(given); return found === null ? undefined : Number(found[1]) * 60 + Number(found[2]); })] as const;
const limitDays = [`a list of days, of ${weekdays.join(', ')}`, (value: unknown) => (Array.isArray(value) && value.length > 0 ? ofAll(value, (one) => weekdays.find((day) => day === one)) : undefined)] as const;
const limits = z.array(section({ target: optional(...name), group: optional(...name), from: optional(...hour), to: optional(...hour), days: optional(...limitDays), rate: field(...limitRate) }), {
  error: (issue) => (issue.code === 'invalid_type' ? `expected a list of limits, each with its rate, found ${show(issue.input)}` : undefined),
}).max(64, { error: 'expected at most 64 limits' }).optional();
const tls = section({ ca: optional(...path), cert: optional(...path), key: optional(...path) }).optional();

export const sourceShape = section({
  role: field(...oneOf(['source'])),
  name: optional(...name),
  data: field(...path),
  tls,
  spool: section({ folder: optional(...path), budget: optional(...budget), keepFree: optional(...size) }).optional(),
  guests,
  limits,
  witness: section({ ...witness, onLeaseLost: optional(...onLeaseLost) }).optional(),
  control: optional(...socketPath),
  localTarget: section({ user: field(...user), name: optional(...name) }).optional(),
  api,
  log,
  metrics,
  alerts,
});

export const targetShape = section({
  role: field(...oneOf(['target'])),
  name: optional(...name),
  listen: section({ host: optional(...listenHost), port: optional(...port) }).optional(),
  advertise: optional(...advertise),
  data: field(...path),
  tls,
  control: optional(...socketPath),
  api,
  log,
  failover: section({ accel: optional(...oneOf(['kvm', 'tcg', 'auto'])), network: optional(...failoverNetwork), overlayFolder: optional(...path), source: optional(...socketPath), by: optional(...oneOf(['qemu', 'libvirt', 'pve'])), uri: optional(...text), pve: section({ storage: optional(...pveStorage), qm: optional(...commandLine), root: optional(...path) }).optional(), check: section({ every: optional(...checkEvery) }).optional() }).optional(),
  nbd: section({
    socket: optional(...socketPath),
    listen: section({ host: optional(...listenHost), port: optional(...port), keys: optional(...path), clients: optional(...fingerprints) }).optional(),
  }).optional(),
  keepFree: optional(...size),
  volume: optional(...volume),
  sources: z.record(safeName, section({ volume: field(...volume) })).optional(),
  scrub: section({ rate: optional(...scrubRate), every: optional(...scrubEvery) }).optional(),
  retention,
  suspicion,
  witness: section(witness).optional(),
  groups,
  metrics,
  alerts,
});

export type SourceFile = z.infer<typeof sourceShape>;
export type TargetFile = z.infer<typeof targetShape>;
