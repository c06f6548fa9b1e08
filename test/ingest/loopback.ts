/** A real ingest on loopback over TLS, with groups in memory, and links to it: what the wire's tests start from. */
import { pino } from 'pino';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { fingerprintOf, makeCertificate, type OwnCertificate } from '../../journal/identity.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import { openTargetLink, type TargetLinkOptions } from '../../daemon/stream/target-link.ts';
import type { TargetLink } from '../../daemon/stream/session.ts';
import { sharedSecrets } from '../../replica-target/ingest/peers.ts';
import { listenIngest, type Ingest, type IngestOptions } from '../../replica-target/ingest/server.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { MemoryRegistry } from './memory-registry.ts';

export interface Teardown { teardown(ending: () => Promise<void> | void): unknown }

export const quiet = pino({ level: 'silent' });
export const sourceId = '11'.repeat(16);
export const groupId = 'aa'.repeat(16);

let certificate: Promise<OwnCertificate> | null = null;

export interface Loopback<R extends GroupRegistry = MemoryRegistry> {
  readonly ingest: Ingest;
  readonly registry: R;
  readonly secret: Buffer;
  readonly fingerprint: string;
  link(options?: Partial<TargetLinkOptions>): TargetLink;
}

export async function startIngest(t: Teardown, options: Partial<IngestOptions> = {}): Promise<Loopback> {
  const registry = new MemoryRegistry();
  return { ...(await startIngestOver(t, registry, options)), registry };
}

export async function startIngestOver<R extends GroupRegistry>(t: Teardown, registry: R, options: Partial<IngestOptions> = {}): Promise<Loopback<R>> {
  const { key, cert } = await (certificate ??= makeCertificate('test target'));
  const secret = nodeRandom.bytes(32);
  const ingest = await listenIngest({
    host: '127.0.0.1', port: 0, key, cert, targetId: '22'.repeat(16), targetName: 'target', registry, peers: sharedSecrets(nodeRandom.bytes(32), secret),
    clock: nodeClock, random: nodeRandom, log: quiet, ...options,
  });
  t.teardown(() => ingest.close());
  const fingerprint = fingerprintOf(cert);
  return {
    ingest, registry, secret, fingerprint,
    link: (linkOptions = {}) => {
      const link = openTargetLink({
        name: 'target', host: '127.0.0.1', port: ingest.address.port, fingerprint, secret, sourceId, sourceName: 'source',
        clock: nodeClock, random: nodeRandom, log: quiet, ...linkOptions,
      });
      t.teardown(() => link.close());
      return link;
    },
  };
}

export function announcement(facts: Partial<GroupAnnouncement> = {}): GroupAnnouncement {
  return { group: groupId, name: 'web', term: 1, rpoMs: 1000, disks: [{ disk: 0, name: 'vda', sizeBytes: 16 * 1024 * 1024 }], hardware: {}, ...facts };
}
