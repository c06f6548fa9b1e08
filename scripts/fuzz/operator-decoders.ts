/** What comes from an operator's side, or who got there: configs, requests to the control socket, points by name, a witness' answers. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { openSourceControl, openTargetControl, type Control } from '../../console/control.ts';
import { parseConfig } from '../../console/config/config.ts';
import type { SourceOperations } from '../../daemon/operations.ts';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import type { Witness } from '../../host/witness.ts';
import { choosePoint, pinSelector } from '../../replica-target/points/point-selector.ts';
import type { TargetOperations } from '../../replica-target/operations.ts';
import type { StoredPoint } from '../../replica-target/store/store.ts';
import type { Decoder } from './decoder.ts';
import { groupId } from './wire-decoders.ts';

const samples = new URL(import.meta.url.endsWith('.ts') ? '../../console/config/samples/' : '../../../console/config/samples/', import.meta.url);

const config: Decoder = {
  name: 'config', faults: ['CONFIG_INVALID'], inputBytesMax: 64 * 1024, bufferBytesMax: () => 1024 ** 2,
  words: ['&a', '*a', '<<: *a', '!!binary ', '!!set', '? ', ': ', '- ', '\t', '---\n', '...\n', '%YAML 1.1\n', '"\\u0000"', '{a: ', '[', '|\n', '>-\n', '0x', '1e999', '.inf', 'retention:', '500GiB', '12h', '__proto__: 1\n', 'groups: {', '\u2028'],
  seeds: () => ['source.yaml', 'target.yaml', 'source-minimal.yaml', 'target-minimal.yaml'].map((name) => readFileSync(new URL(name, samples))),
  decode: (input) => { parseConfig('/c.yaml', input.toString('utf8'), 'host'); },
};

const nowMs = Date.UTC(2026, 10, 23, 10, 42, 7);
const stored: readonly StoredPoint[] = [[1, 5], [1, 6], [2, 1]].map(([term, point]) => ({ term: term!, point: point!, kind: 'mark', cutAtMs: nowMs - 1000 * point!, arrivedAtMs: nowMs, changedBytes: 1, isApplied: true, label: `l${point}` }));

const selector: Decoder = {
  name: 'selector', faults: ['POINT_UNKNOWN'], inputBytesMax: 4096, bufferBytesMax: () => 256 * 1024,
  words: ['newest', '2.7', '-15m', '-2h30m', '10:42', '2026-11-23T10:42:07Z', '2026-02-30', '+02:00', '99999', 'label:', '0000-', '-', ':', '.', 'T24:00'],
  seeds: () => ['newest', '1.5', '-1s', '10:42:07', '2026-11-23 10:42:06', '2026-11-23T10:42:07Z', 'label:l5', 'l6'].map((text) => Buffer.from(text)),
  decode(input) {
    const text = input.toString('utf8');
    choosePoint(stored, text, nowMs, 'web1');
    pinSelector(text, nowMs);
  },
};

/** Every operation is there and does nothing: it is the way to them that is tried. */
function operations<T extends object>(): T {
  return new Proxy({} as T, { get: () => () => Promise.resolve({}) });
}

/** HTTP as it comes in on a control socket. A reply of 500 is a bug that was met. */
function control(): Decoder {
  let folder: string | null = null;
  const log = pino({ level: 'silent' });
  const opened: { controls: Promise<Control[]> | null } = { controls: null };
  const http = (route: string, body?: object): Buffer => {
    const text = body === undefined ? '' : JSON.stringify(body);
    return Buffer.from(`${body === undefined ? 'GET' : 'POST'} ${route} HTTP/1.1\r\nHost: a\r\n${body === undefined ? '' : `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n`}Connection: close\r\n\r\n${text}`);
  };
  const headEnd = (input: Buffer): number => input.indexOf('\r\n\r\n');
  return {
    name: 'control', faults: [], inputBytesMax: 128 * 1024, bufferBytesMax: (inputBytes) => 4 * 1024 ** 2 + 64 * inputBytes,
    words: ['Transfer-Encoding: chunked\r\n', 'Content-Length: -1\r\n', 'Expect: 100-continue\r\n', 'Upgrade: websocket\r\n', '%00', '../', '?group=', '\r\n', 'application/json', '{"__proto__":1}', 'POST /failover HTTP/1.1\r\n'],
    seeds: () => [
      http('/report'), http('/points?group=web1'), http('/point?group=web1&at=-15m'), http('/pair', { token: 'T' }), http('/protect', { name: 'web1', qmpPath: '/q', rpoMs: 1000, members: [{ name: 'a', qmpPath: '/a' }, { name: 'b', qmpPath: '/b' }] }),
      http('/mark', { name: 'web1', label: 'x' }), http('/failover', { group: 'web1', at: 'newest', network: 'none', planned: { shutdownMs: 60_000, onLimit: 'stop' } }), http('/point/hold', { group: 'web1', at: '1.5', reason: 'r', forMs: 1000 }),
      http('/changes', { groupId, since: { term: 1, point: 1 }, point: { term: 1, point: 2 } }),
    ],
    mend(input) {
      // The head says how long the body is, in as many digits as it has.
      const head = headEnd(input);
      const found = head < 0 ? null : /Content-Length: (\d+)\r\n/.exec(input.toString('latin1', 0, head + 2));
      if (found !== null) input.write(String(input.length - head - 4).padStart(found[1]!.length, '0').slice(-found[1]!.length), found.index + 'Content-Length: '.length, 'latin1');
    },
    async decode(input) {
      folder ??= mkdtempSync(join(tmpdir(), 'afterimage-fuzz-control-'));
      const paths = [join(folder, 'source'), join(folder, 'target')] as const;
      opened.controls ??= Promise.all([openSourceControl(paths[0], operations<SourceOperations>(), log), openTargetControl(paths[1], operations<TargetOperations>(), log)]);
      await opened.controls;
      await Promise.all(paths.map(async (path) => {
        const said = await exchange(path, input);
        if (/^HTTP\/1\.1 5/m.test(said)) throw new Error(`answered ${said.slice(0, 300)}`);
      }));
    },
    async close() {
      for (const one of await opened.controls ?? []) await one.close();
      if (folder !== null) rmSync(folder, { recursive: true, force: true });
    },
  };
}

function exchange(path: string, input: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    const socket = connect({ path }, () => { socket.end(input); });
    socket.on('data', (part: Buffer) => parts.push(part));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(Buffer.concat(parts).toString('latin1')));
  });
}

function witness(): Decoder {
  const coded = (text: string): string => Buffer.from(text).toString('base64');
  const answer = (body: object): Buffer => {
    const text = JSON.stringify(body);
    return Buffer.from(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n${text}`);
  };
  const place: { serve: (socket: Socket) => void; close: () => Promise<void>; witness: Witness | null } = { serve: () => undefined, close: () => Promise.resolve(), witness: null };
  return {
    name: 'witness', faults: ['WITNESS_UNREACHABLE'], inputBytesMax: 64 * 1024, bufferBytesMax: (inputBytes) => 2 * 1024 ** 2 + 64 * inputBytes,
    words: ['"kvs":', '"succeeded":', 'HTTP/1.1 500 x\r\n', 'Content-Length: 99999999999\r\n', '\r\n\r\n'],
    seeds: () => [
      answer({ kvs: [{ key: coded(`/afterimage/${groupId}/record`), value: coded('{"term":2,"byId":"a","by":"alpha"}'), mod_revision: '7' }, { key: coded(`/afterimage/${groupId}/holders/a`), value: coded('{"term":2,"by":"alpha","holder":"a"}') }], succeeded: true, ID: '7', result: { TTL: '30' } }),
      answer({ succeeded: true, ID: '7', result: { TTL: '1' } }),
    ],
    async decode(input) {
      if (place.witness === null) {
        const server = createServer((socket) => {
          socket.on('error', () => undefined);
          socket.once('data', () => place.serve(socket));
        });
        await new Promise<void>((resolve) => { server.listen(0, '127.0.0.1', resolve); });
        const { port } = server.address() as { port: number };
        place.close = () => new Promise((resolve) => { server.close(() => resolve()); });
        place.witness = await etcdWitness({ endpoints: [`http://127.0.0.1:${port}`], prefix: '/afterimage/', answerMsMax: 2000 });
      }
      place.serve = (socket) => { socket.end(input); };
      const view = await place.witness.look(groupId);
      await place.witness.put(groupId, null, view, false);
      const lease = await place.witness.grant(1000);
      await place.witness.keepAlive(lease);
    },
    async close() {
      place.witness?.close();
      await place.close();
    },
  };
}


export const operatorDecoders = (): readonly Decoder[] => [config, selector, control(), witness()];
