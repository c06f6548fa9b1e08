/** A target's API with both doors open on loopback, for tests: its client, and raw requests with what headers they like. */
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:https';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { TargetClient } from '../../../console/control-client.ts';
import { openSourceControl, openTargetControl, type Control, type ControlOptions } from '../../../console/control.ts';
import type { SourceOperations } from '../../../daemon/operations.ts';
import { fingerprintOf, makeCertificate } from '../../../journal/identity.ts';
import type { TargetOperations } from '../../../replica-target/operations.ts';
import { sourceOperations, targetOperations } from '../told-operations.ts';

export interface Asked { readonly method?: string; readonly token?: string | null; readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> }
export interface Answered { readonly status: number; readonly headers: IncomingHttpHeaders; readonly text: string; readonly json: Record<string, unknown> }

export interface OpenApi {
  readonly calls: unknown[][];
  readonly control: Control;
  readonly local: TargetClient;
  readonly port: number;
  readonly fingerprint: string;
  readonly folder: string;
  /** Everything that was logged. */
  readonly logged: () => string;
  token(scope: 'read' | 'operate' | 'administer'): Promise<string>;
  /** Over TLS. */
  ask(path: string, asked?: Asked): Promise<Answered>;
}

const certificate = makeCertificate('api-test');

const trail = {
  reading: { entryCount: 1, last: { n: 1, hash: 'ab'.repeat(32) }, head: null, broken: null, tornBytes: 0, endOfWhole: 1 },
  entries: [{ n: 1, atMs: 1, who: { kind: 'itself' as const }, act: 'start', on: null, what: {}, outcome: 'done' }],
};

type Teardown = { teardown(after: () => unknown): unknown };

export async function openTargetApi(t: Teardown, more: Partial<TargetOperations> = {}, options: ControlOptions<TargetOperations> = {}): Promise<OpenApi> {
  const calls: unknown[][] = [];
  return openApi(t, calls, (path, log, listen) => openTargetControl(path, targetOperations(calls, more), log, { ...listen, ...options }));
}

export async function openSourceApi(t: Teardown, more: Partial<SourceOperations> = {}): Promise<OpenApi> {
  const calls: unknown[][] = [];
  return openApi(t, calls, (path, log, listen) => openSourceControl(path, { ...sourceOperations(calls), ...more }, log, listen));
}

async function openApi(t: Teardown, calls: unknown[][], open: (path: string, log: pino.Logger, options: ControlOptions<never>) => Promise<Control>): Promise<OpenApi> {
  const folder = await mkdtemp(join(tmpdir(), 'ai-api-'));
  const lines: string[] = [];
  const { key, cert } = await certificate;
  const control = await open(join(folder, 'control.sock'), pino({ level: 'trace' }, { write: (line: string) => { lines.push(line); } }), {
    folder: join(folder, 'api'), version: '0.1.0', lookMs: 20, assetsFolder: null, listen: { host: '127.0.0.1', port: 0, key, cert }, readTrail: () => Promise.resolve(trail),
  });
  t.teardown(async () => {
    await control.close();
    await rm(folder, { recursive: true, force: true });
  });
  const local = new TargetClient(join(folder, 'control.sock'));
  const { port } = control.address!;
  return {
    calls, control, local, port, folder, fingerprint: fingerprintOf(cert), logged: () => lines.join(''),
    token: async (scope) => (await local.createToken(`${scope}-${lines.length}`, scope, null)).token,
    ask: (path, asked) => askTls(port, path, asked),
  };
}

/** Certificates are another test's. */
export function askTls(port: number, path: string, { method = 'GET', token = null, body, headers = {} }: Asked = {}): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const outgoing = request({
      host: '127.0.0.1', port, path, method, agent: false, rejectUnauthorized: false, timeout: 10_000,
      headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }), ...headers },
    }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('error', reject);
      incoming.on('end', () => {
        const all = Buffer.concat(chunks).toString('utf8');
        const isJson = /json/.test(incoming.headers['content-type'] ?? '');
        resolve({ status: incoming.statusCode!, headers: incoming.headers, text: all, json: isJson ? JSON.parse(all) as Record<string, unknown> : {} });
      });
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
    outgoing.on('error', reject);
    outgoing.end(text);
  });
}
