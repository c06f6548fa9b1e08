/**
 * Which daemon a command asks: the one that the config names, through its control socket, or with --api one elsewhere, over TLS
 * with a token from a file. Tokens come from files alone: a command line is seen by everybody on the host.
 */
import { readFile, stat } from 'node:fs/promises';
import type { RemotePlace } from './api-call.ts';
import { chooseSource, chooseTarget, type ConfigOption } from './choose-config.ts';
import { readHostPort } from './config/quantity.ts';
import { SourceClient, TargetClient } from './control-client.ts';
import { UsageError } from './exit-code.ts';

/** Beside --config; each has a variable of the environment. */
export interface DaemonOption extends ConfigOption {
  readonly api?: string;
  readonly tokenFile?: string;
  readonly fingerprint?: string;
  readonly ca?: string;
}

/** As the config says where it says nothing. */
const apiPortDefault = 7229;
/** A token is 54 characters. */
const tokenFileBytesMax = 4096;

export async function openSource(option: DaemonOption, what: string): Promise<SourceClient> {
  return new SourceClient(await remotePlace(option) ?? (await chooseSource(option, what)).controlPath);
}

export async function openTarget(option: DaemonOption, what: string): Promise<TargetClient> {
  return new TargetClient(await remotePlace(option) ?? (await chooseTarget(option, what)).controlPath);
}

/** Null: the daemon of this host is meant. Throws UsageError. */
export async function remotePlace(option: DaemonOption): Promise<RemotePlace | null> {
  const api = option.api ?? environment('AFTERIMAGE_API');
  if (api === undefined) return null;
  if (option.config !== undefined) throw new UsageError('--config names a daemon of this host, and --api one elsewhere: one or the other');
  const address = readHostPort(api.replace(/^https:\/\//, '').replace(/\/$/, ''));
  if (address === undefined) throw new UsageError(`expected --api https://HOST:PORT, found ${JSON.stringify(api)}.`);
  const tokenFile = option.tokenFile ?? environment('AFTERIMAGE_TOKEN_FILE');
  if (tokenFile === undefined) throw new UsageError('--api needs --token-file (or AFTERIMAGE_TOKEN_FILE): a file with a token that `afterimage token create` printed on the daemon’s host');
  const fingerprint = readFingerprint(option.fingerprint ?? environment('AFTERIMAGE_FINGERPRINT'));
  const ca = option.ca ?? environment('AFTERIMAGE_CA');
  return {
    host: address.host, port: address.port ?? apiPortDefault, token: await readTokenFile(tokenFile), fingerprint, ...(ca === undefined ? {} : { ca: await readFile(ca, 'utf8') }),
  };
}

async function readTokenFile(path: string): Promise<string> {
  const { mode, size } = await stat(path);
  if ((mode & 0o077) !== 0) throw new UsageError(`${path} holds a token, and others can read it: chmod 0600`);
  const token = size > tokenFileBytesMax ? '' : (await readFile(path, 'utf8')).trim();
  // Never repeats what was found: it may be another secret.
  if (!/^[A-Za-z0-9_.~+/-]{1,200}=*$/.test(token)) throw new UsageError(`${path} holds no token: expected the one line that \`afterimage token create\` printed`);
  return token;
}

/** With or without colons, as openssl prints it. */
function readFingerprint(text: string | undefined): string | null {
  if (text === undefined) return null;
  const digits = text.replaceAll(':', '').toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(digits)) throw new UsageError('expected --fingerprint as 64 hex digits (SHA-256 of the daemon’s certificate)');
  return digits;
}

function environment(name: string): string | undefined {
  const value = process.env[name];
  return value === '' ? undefined : value;
}
