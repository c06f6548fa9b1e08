/**
 * A target without TLS, for measuring what TLS costs, a process of its own: the product's ingest and store put together as
 * replica-target/target.ts does. It exists in the benchmark alone; a daemon has no such switch. Asked by driven-roles.ts.
 */
import { mkdir } from 'node:fs/promises';
import { pino } from 'pino';
import { nodeClock } from '../../host/node/clock.ts';
import { collectSeldom } from '../../host/node/collector.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { fingerprintOf, makeCertificate, makeToken, secretBytes } from '../../journal/identity.ts';
import { sharedSecrets } from '../../replica-target/ingest/peers.ts';
import { listenIngest } from '../../replica-target/ingest/server.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { TargetEvent, TargetFacts } from './driven-roles.ts';

const host = '127.0.0.1';
const { groupsFolder } = JSON.parse(process.argv[2]!) as TargetFacts;
collectSeldom();
const log = pino({ level: 'warn' });
await mkdir(groupsFolder, { recursive: true, mode: 0o700 });
const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: groupsFolder, log, options: { freeBytesMin: 64 * 1024 ** 2 } });
const { key, cert } = await makeCertificate('bravo');
const secret = nodeRandom.bytes(secretBytes);
const targetId = nodeRandom.bytes(16).toString('hex');
const ingest = await listenIngest({
  host, port: 0, key, cert, targetId, targetName: 'bravo', registry, peers: sharedSecrets(secret), clock: nodeClock, random: nodeRandom, log, tls: false,
});

function tell(event: TargetEvent): void {
  process.send?.(event);
}

process.on('message', () => tell({ event: 'groups', groups: registry.groups().map((group) => group.report()) }));
process.on('disconnect', () => process.exit());
tell({ event: 'ready', token: makeToken({ host, port: ingest.address.port, fingerprint: fingerprintOf(cert), secret, targetId, targetName: 'bravo' }) });
