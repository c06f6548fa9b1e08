/** What looking at changes adds to the target's CPU: the same delta applied with and without, in turns, by the product's own store. */
import { mkdir } from 'node:fs/promises';
import { nodeClock } from '../../../host/node/clock.ts';
import { nodeDisk } from '../../../host/node/disk.ts';
import { nodeRandom } from '../../../host/node/random.ts';
import { makeRecord, type RecordHeader } from '../../../journal/record.ts';
import { encodePayload } from '../../../journal/seal.ts';
import { openRegistry } from '../../../replica-target/store/registry.ts';
import { defaultSuspicion } from '../../../replica-target/suspicion/suspicion-plan.ts';
import { median, rounded } from '../figures.ts';
import type { Site } from '../site.ts';

const mib = 1024 * 1024;
const runBytes = 256 * 1024;
/** Points of one GiB together; each is a batch of its own. */
const points = 16;
const pointBytes = 64 * mib;
const diskBytes = 256 * mib;
const turns = 3;

export interface Cost { readonly cpu_seconds_per_gib: { readonly with: number; readonly without: number; readonly added: number }; readonly points: number; readonly run_bytes: number }

export async function measureCost(site: Site, imagePath: string): Promise<Cost> {
  const image = await nodeDisk.open(imagePath, 'read');
  const content = Buffer.alloc(pointBytes);
  await image.read(content, 0, pointBytes, 32 * mib);
  await image.close();
  const taken: Record<'with' | 'without', number[]> = { with: [], without: [] };
  for (let turn = 0; turn < turns * 2; turn++) {
    const isOn = turn % 2 === 0;
    taken[isOn ? 'with' : 'without'].push(await applySeconds(site.freshPath('cost'), content, isOn));
  }
  const [withIt, without] = [rounded(median(taken.with), 3), rounded(median(taken.without), 3)];
  return { cpu_seconds_per_gib: { with: withIt, without, added: rounded(withIt - without, 3) }, points, run_bytes: runBytes };
}

/** CPU seconds of this process from the first record of a GiB to its being applied. */
async function applySeconds(folder: string, content: Buffer, isOn: boolean): Promise<number> {
  await mkdir(folder);
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: `${folder}/groups`, options: { suspicion: { random: nodeRandom, of: () => ({ ...defaultSuspicion, sensitivity: isOn ? 'normal' : 'off' }) } } });
  const group = nodeRandom.bytes(16).toString('hex');
  const store = await registry.announce('cd'.repeat(16), { group, name: 'cost', term: 1, rpoMs: 1000, disks: [{ disk: 0, name: 'disk0', sizeBytes: diskBytes }], hardware: {} });
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  const before = process.cpuUsage();
  for (let point = 1; point <= points; point++) {
    const identity = { groupId: group, deltaId: BigInt(point), point, term: 1 } as const;
    const frame = (kind: 'open' | 'seal', sequence: number): Omit<RecordHeader, 'payloadBytes'> => ({ ...identity, kind, codec: 'none', disk: 0, offset: 0, length: 0, sequence });
    const base = point === 1 ? null : { term: 1, point: point - 1 };
    let sequence = 0;
    await store.append(makeRecord(frame('open', sequence++), encodePayload({ base })));
    for (let at = 0; at < pointBytes; at += runBytes) {
      // Four regions in turn, so that every point but the first four overwrites something.
      await store.append(makeRecord({ ...identity, kind: 'data', codec: 'none', disk: 0, offset: ((point % 4) * pointBytes) + at, length: runBytes, sequence: sequence++ }, content.subarray((at + point * 4096) % (pointBytes - runBytes), ((at + point * 4096) % (pointBytes - runBytes)) + runBytes)));
    }
    await store.append(makeRecord(frame('seal', sequence), encodePayload({ base, kind: 'crash', cutAtMs: point * 1000, records: sequence + 1, changedBytes: pointBytes, disks: [{ disk: 0, sizeBytes: diskBytes }] })));
  }
  await store.drain();
  const used = process.cpuUsage(before);
  await registry.forget(group);
  await registry.close();
  return (used.user + used.system) / 1e6;
}
