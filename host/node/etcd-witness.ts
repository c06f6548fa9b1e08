/**
 * A witness in an etcd of version 3.4 or newer, by its JSON gateway (etcd.io/docs/v3.4/dev-guide/api_grpc_gateway): one small request at a time needs neither gRPC nor a watch.
 * Keys, beneath the prefix: `GROUP/record` and `GROUP/holders/HOLDER`, the latter bound to its holder's lease. Transactions are etcd's (`/v3/kv/txn`).
 */
import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { Fault, isFault } from '../../journal/fault.ts';
import type { Witness, WitnessRecord, WitnessView } from '../witness.ts';

export interface EtcdOptions {
  /** URLs, asked in turn until one answers. */
  readonly endpoints: readonly string[];
  /** Keys begin with it. */
  readonly prefix: string;
  /** PEM files: of who signed the servers' certificates, and this client's own. */
  readonly caPath?: string;
  readonly certPath?: string;
  readonly keyPath?: string;
  /** For an etcd with authentication; the file holds the password alone. */
  readonly user?: string;
  readonly passwordPath?: string;
  /** For one endpoint's answer, ms. */
  readonly answerMsMax: number;
}

/** A witness as a config names it. */
export interface WitnessOptions {
  readonly etcd: Omit<EtcdOptions, 'answerMsMax'>;
  /** How long a lease lasts that nobody renews, ms. */
  readonly ttlMs: number;
}

/** Part of the lease's time that one endpoint may take to answer: several can be asked before it ends. */
const answerPart = 1 / 10;

/** Nothing is asked of it yet. Faults: CONFIG_INVALID when a file that is named cannot be read. */
export function openWitness({ etcd, ttlMs }: WitnessOptions): Promise<Witness> {
  return etcdWitness({ ...etcd, answerMsMax: Math.ceil(ttlMs * answerPart) });
}

/** An answer is a few keys. */
const answerBytesMax = 1024 * 1024;

const claim = z.object({ term: z.number().int().min(1), byId: z.string(), by: z.string() });
const record = claim.extend({ before: claim.nullable().optional() });
const holder = z.object({ term: z.number().int().min(1), by: z.string(), holder: z.string() });
const keyValue = z.object({ key: z.string(), value: z.string().default(''), mod_revision: z.string().default('0') });
const range = z.object({ kvs: z.array(keyValue).default([]) });
const txn = z.object({ succeeded: z.boolean().default(false) });
const granted = z.object({ ID: z.string() });
/** The gateway wraps what is a stream. Without a TTL the lease has ended. */
const kept = z.object({ result: z.object({ TTL: z.string().default('0') }) });
const authenticated = z.object({ token: z.string() });

interface ClientTls { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer }

class EtcdWitness implements Witness {
  readonly #o: EtcdOptions;
  readonly #tls: ClientTls;
  readonly #password: string | null;
  readonly #http = new HttpAgent({ keepAlive: true, maxSockets: 4 });
  readonly #https: HttpsAgent;
  #token: string | null = null;
  /** That which answered last is asked first. */
  #first = 0;

  constructor(options: EtcdOptions, tls: ClientTls, password: string | null) {
    this.#o = options;
    this.#tls = tls;
    this.#password = password;
    this.#https = new HttpsAgent({ keepAlive: true, maxSockets: 4, ...this.#tls });
  }

  async look(groupId: string): Promise<WitnessView> {
    const { kvs } = this.#shaped(range, await this.#ask('/v3/kv/range', { key: coded(this.#folder(groupId)), range_end: coded(endOf(this.#folder(groupId))) }));
    const found = kvs.map(({ key, value, mod_revision }) => ({ key: decoded(key), value: decoded(value), revision: mod_revision }));
    const at = found.find(({ key }) => key === this.#recordKey(groupId));
    const holders = found.filter(({ key }) => key.startsWith(this.#holdersFolder(groupId)));
    return {
      record: at === undefined ? null : this.#read(record, at.value, at.key), revision: at?.revision ?? '0',
      holders: holders.map(({ key, value }) => this.#read(holder, value, key)),
    };
  }

  async put(groupId: string, put: WitnessRecord | null, seen: WitnessView, isFree: boolean): Promise<boolean> {
    const holders = this.#holdersFolder(groupId);
    const key = coded(this.#recordKey(groupId));
    return this.#txn(
      // Of a range without keys any version is said to be 0 (server/etcdserver/apply.go, applyCompare).
      [this.#isSeen(groupId, seen), ...(isFree ? [{ key: coded(holders), range_end: coded(endOf(holders)), target: 'VERSION', result: 'EQUAL', version: '0' }] : [])],
      [put === null ? { request_delete_range: { key } } : { request_put: { key, value: coded(JSON.stringify(put)) } }],
    );
  }

  async grant(ttlMs: number): Promise<string> {
    return this.#shaped(granted, await this.#ask('/v3/lease/grant', { TTL: String(Math.ceil(ttlMs / 1000)) })).ID;
  }

  async keepAlive(lease: string): Promise<boolean> {
    return Number(this.#shaped(kept, await this.#ask('/v3/lease/keepalive', { ID: lease })).result.TTL) > 0;
  }

  async hold(groupId: string, held: { holder: string; by: string; term: number }, lease: string, seen: WitnessView): Promise<boolean> {
    try {
      return await this.#txn([this.#isSeen(groupId, seen)], [
        { request_put: { key: coded(this.#holdersFolder(groupId) + held.holder), value: coded(JSON.stringify(held)), lease } },
        ...((seen.record?.term ?? 0) < held.term ? [{ request_put: { key: coded(this.#recordKey(groupId)), value: coded(JSON.stringify({ term: held.term, byId: held.holder, by: held.by })) } }] : []),
      ]);
    } catch (error) {
      // It ended meanwhile.
      if (isFault(error, 'WITNESS_UNREACHABLE') && /lease not found/.test(error.message)) return false;
      throw error;
    }
  }

  async letGo(groupId: string, held: string): Promise<void> {
    await this.#ask('/v3/kv/deleterange', { key: coded(this.#holdersFolder(groupId) + held) });
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  #isSeen(groupId: string, { revision }: WitnessView): object {
    return { key: coded(this.#recordKey(groupId)), target: 'MOD', result: 'EQUAL', mod_revision: revision };
  }

  async #txn(compare: readonly object[], success: readonly object[]): Promise<boolean> {
    return this.#shaped(txn, await this.#ask('/v3/kv/txn', { compare, success })).succeeded;
  }

  async #ask(path: string, body: object, isAgain = false): Promise<unknown> {
    if (this.#o.user !== undefined) this.#token ??= await this.#authenticate();
    try {
      return await this.#askAny(path, body);
    } catch (error) {
      // Tokens end, and are forgotten by an etcd that was started anew.
      if (isAgain || this.#token === null || !isFault(error) || !(error.facts['status'] === 401 || /auth store is old|invalid auth token|user name is empty/.test(error.message))) throw error;
      this.#token = null;
      return this.#ask(path, body, true);
    }
  }

  async #authenticate(): Promise<string> {
    return this.#shaped(authenticated, await this.#askAny('/v3/auth/authenticate', { name: this.#o.user, password: this.#password ?? '' })).token;
  }

  async #askAny(path: string, body: object): Promise<unknown> {
    const { endpoints } = this.#o;
    let last: unknown;
    for (let turn = 0; turn < endpoints.length; turn += 1) {
      const at = (this.#first + turn) % endpoints.length;
      try {
        const answer = await this.#askOne(new URL(path, endpoints[at]), JSON.stringify(body));
        this.#first = at;
        return answer;
      } catch (error) {
        if (!isFault(error)) throw error;
        last = error;
        // It answered, and another would say the same.
        if (typeof error.facts['status'] === 'number' && error.facts['status'] < 500) break;
      }
    }
    throw last;
  }

  /** Fault WITNESS_UNREACHABLE: what answered is no etcd. */
  #shaped<T>(schema: z.ZodType<T>, answer: unknown): T {
    const parsed = schema.safeParse(answer);
    if (!parsed.success) throw new Fault('WITNESS_UNREACHABLE', `the witness’ answer is not of the shape that etcd gives: ${z.prettifyError(parsed.error).slice(0, 300)}`, {});
    return parsed.data;
  }

  #askOne(url: URL, body: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const fail = (why: string, facts: object = {}): void => reject(new Fault('WITNESS_UNREACHABLE', `the witness at ${url.origin}: ${why}`, { endpoint: url.origin, ...facts }));
      const isTls = url.protocol === 'https:';
      const asked = (isTls ? httpsRequest : httpRequest)(url, {
        method: 'POST', agent: isTls ? this.#https : this.#http, signal: AbortSignal.timeout(this.#o.answerMsMax),
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...(this.#token === null ? {} : { authorization: this.#token }) },
      });
      asked.on('error', (error) => fail(error.name === 'AbortError' || error.name === 'TimeoutError' ? `no answer within ${this.#o.answerMsMax} ms` : error.message));
      asked.on('response', (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on('error', (error) => fail(error.message));
        response.on('data', (part: Buffer) => {
          bytes += part.length;
          if (bytes > answerBytesMax) response.destroy(new Error(`its answer is larger than ${answerBytesMax} bytes`));
          else parts.push(part);
        });
        response.on('end', () => {
          const text = Buffer.concat(parts).toString('utf8');
          if (response.statusCode !== 200) return fail(`it answered ${response.statusCode}: ${text.slice(0, 300)}`, { status: response.statusCode });
          try {
            resolve(JSON.parse(text));
          } catch {
            fail(`its answer is no JSON: ${text.slice(0, 100)}`);
          }
        });
      });
      asked.end(body);
    });
  }

  /** Fault WITNESS_UNREACHABLE: somebody else wrote there. */
  #read<T>(schema: z.ZodType<T>, text: string, key: string): T {
    let value: unknown = null;
    try {
      value = JSON.parse(text);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    const parsed = schema.safeParse(value);
    if (!parsed.success) throw new Fault('WITNESS_UNREACHABLE', `what the witness holds under ${key} was not written by Afterimage`, { key });
    return parsed.data;
  }

  #folder(groupId: string): string { return `${this.#o.prefix}${groupId}/`; }
  #recordKey(groupId: string): string { return `${this.#folder(groupId)}record`; }
  #holdersFolder(groupId: string): string { return `${this.#folder(groupId)}holders/`; }
}

/** Nothing is asked of it yet. Faults: CONFIG_INVALID when a file that is named cannot be read. */
export async function etcdWitness(options: EtcdOptions): Promise<Witness> {
  const { caPath, certPath, keyPath, passwordPath } = options;
  const [ca, cert, key, password] = await Promise.all([caPath, certPath, keyPath, passwordPath].map((path) => (path === undefined ? Promise.resolve(undefined) : contentOf(path))));
  return new EtcdWitness(options, { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) }, password === undefined ? null : password.toString('utf8').trim());
}

async function contentOf(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new Fault('CONFIG_INVALID', `${path}, which the config names for the witness, cannot be read: ${(error as Error).message}`, { path }, error);
  }
}

function coded(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

function decoded(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8');
}

/** The first key that does not begin with it (etcd's `range_end` of a prefix); it ends in a slash here. */
function endOf(folder: string): string {
  return `${folder.slice(0, -1)}0`;
}
