/** A real target with a real store on loopback, a real source's side of pairing, and a hand that holds a source's key: what the tests of trust start from. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { WebSocket } from 'ws';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { PairedTargets } from '../../daemon/pairing/paired-targets.ts';
import { SourceState } from '../../daemon/source-state.ts';
import { connectTarget, type TargetAddress } from '../../daemon/stream/connect-target.ts';
import { sessionLimits, type WireSession } from '../../daemon/stream/wire-session.ts';
import { readToken, type OwnCertificate } from '../../journal/identity.ts';
import { protocolPath, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import type { RunningTarget, TargetOptions } from '../../replica-target/operations.ts';
import { startTarget } from '../../replica-target/target.ts';
import { quiet, type Teardown } from '../ingest/loopback.ts';
import { RawSource } from '../ingest/raw-source.ts';
import { waitFor } from '../support/wait.ts';

export const limit = { limitMs: 30_000, everyMs: 5 };

export async function privateFolder(t: Teardown): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'af-trust-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface TrustTarget { readonly folder: string; readonly running: RunningTarget; readonly options: TargetOptions; restart(change?: Partial<TargetOptions>): Promise<void>; stop(): Promise<void> }

/** Listens on the same port after a restart. */
export async function trustTarget(t: Teardown, change: Partial<TargetOptions> = {}, folder?: string): Promise<TrustTarget> {
  const dataFolder = folder ?? await privateFolder(t);
  let options: TargetOptions = {
    name: 'bravo', listen: { host: '127.0.0.1', port: 0 }, advertise: { host: '127.0.0.1', port: 0 }, dataFolder, keepFreeBytes: 0,
    failover: { accel: 'tcg', network: 'none', overlayFolder: join(dataFolder, 'overlays') }, nbd: { socketPath: join(dataFolder, 'nbd.sock'), listen: null }, ...change,
  };
  const start = (): Promise<RunningTarget> => startTarget(options, { log: quiet, version: 'test' });
  let running = await start();
  let isUp = true;
  const port = Number(running.report().address.split(':').at(-1));
  options = { ...options, listen: { host: '127.0.0.1', port } };
  const stop = async (): Promise<void> => {
    if (isUp) await running.close();
    isUp = false;
  };
  t.teardown(stop);
  return {
    folder: dataFolder, get running() { return running; }, get options() { return options; }, stop,
    restart: async (more = {}) => {
      await stop();
      options = { ...options, ...more };
      running = await start();
      isUp = true;
    },
  };
}

export interface TrustSource { readonly folder: string; readonly sourceId: string; readonly targets: PairedTargets; restart(): Promise<void> }

/** What of a source pairs and keeps its links; what is sent over them is the test's. */
export async function trustSource(t: Teardown, options: { readonly name?: string; readonly folder?: string; readonly tls?: { ca?: string; cert?: string; key?: string } } = {}): Promise<TrustSource> {
  const folder = options.folder ?? await privateFolder(t);
  const state = new SourceState(folder);
  await state.prepare();
  const sourceId = await state.identity(() => nodeRandom.bytes(16).toString('hex'));
  const open = (): Promise<PairedTargets> => PairedTargets.open({ name: options.name ?? 'alpha', dataFolder: folder, tls: options.tls ?? {}, state, sourceId, log: quiet, onRelinked: () => Promise.resolve() });
  let targets = await open();
  t.teardown(() => targets.close());
  return {
    folder, sourceId, get targets() { return targets; },
    restart: async () => {
      await targets.close();
      targets = await open();
    },
  };
}

/** The key and certificate that a source holds: what a thief takes. */
export async function stolenFrom(source: TrustSource): Promise<OwnCertificate> {
  const { key, cert } = JSON.parse(await readFile(join(source.folder, 'certificate.json'), 'utf8')) as OwnCertificate;
  return { key, cert };
}

/** One attempt to connect, with whatever the test wants to show and to prove. */
export function attempt(token: string, facts: Partial<TargetAddress>): Promise<WireSession> {
  const { host, port, fingerprint } = readToken(token);
  return connectTarget({ host, port, fingerprint, sourceId: 'ab'.repeat(16), sourceName: 'mallory', ...facts }, { clock: nodeClock, random: nodeRandom, limits: sessionLimits }, AbortSignal.timeout(30_000));
}

/** Says what the test wants over mutual TLS, after a handshake as the source whose key it holds. */
export async function inTheHandsOf(key: OwnCertificate, sourceId: string, port: number): Promise<RawSource & { readonly targetNonce: string }> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, key: key.key, cert: key.cert });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  const hand = new RawSource(new WebSocket(`ws://127.0.0.1:${port}${protocolPath}`, { createConnection: () => socket, perMessageDeflate: false }));
  await new Promise((resolve) => { hand.ws.once('open', resolve); hand.ws.once('close', resolve); });
  hand.say({ t: 'hello', versions: [1], sourceId, sourceName: 'thief', nonce: '05'.repeat(32) });
  const { nonce: targetNonce } = await hand.hear('challenge');
  hand.say({ t: 'auth' });
  await hand.hear('welcome');
  return Object.assign(hand, { targetNonce });
}

export function portOf(target: TrustTarget): number {
  return target.options.listen.port;
}

/** Says it, and waits for the first answer that is none of the running news. */
export async function answerTo(hand: RawSource, message: SourceMessage): Promise<TargetMessage | 'closed'> {
  hand.heard.length = 0;
  hand.say(message);
  return waitFor(() => {
    const heard = hand.heard.find(({ t }) => !['credit', 'applied', 'ack'].includes(t));
    return heard ?? (hand.isClosed ? 'closed' as const : null);
  }, { ...limit, what: `an answer to ${message.t}` });
}

/** A connection that says nothing but whether it is there. */
export async function isUp(targets: PairedTargets, name = 'bravo'): Promise<void> {
  await targets.links.get(name)!.link.session(AbortSignal.timeout(30_000));
}

