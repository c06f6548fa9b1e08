/** What the sampler says of a point, beside a naive count over the whole images; of the blocks that it looks at all, as of small points. */
import { createCipheriv } from 'node:crypto';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { nodeDisk } from '../../host/node/disk.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { DiskPlan } from '../../replica-target/store/apply-plan.ts';
import { BlockSampler } from '../../replica-target/suspicion/block-sampler.ts';
import { shapeBlockBytes as block } from '../../replica-target/suspicion/block-shape.ts';
import type { PointChanges } from '../../replica-target/suspicion/point-changes.ts';

const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 5), Buffer.alloc(16));
const noise = (): Buffer => cipher.update(Buffer.alloc(block));
const text = (at: number): Buffer => Buffer.from(Array.from({ length: block / 16 }, (_, line) => `line ${String(at * 1000 + line * 31).padStart(10, '0')}\n`).join(''));
const place = { segment: 1, at: 0 };
const end = { segment: 1, at: 1 };
let count = 0;

/** One point over an image: these records, each as it was sent. */
async function sampled(folder: string, image: Buffer, records: readonly { readonly start: number; readonly bytes: Buffer }[]): Promise<PointChanges> {
  const file = await nodeDisk.open(join(folder, `image${count++}`), 'create');
  try {
    await file.write(image, 0);
    const plan = new DiskPlan(0, image.length);
    for (const [index, { start, bytes }] of records.entries()) plan.add(start, start + bytes.length, index);
    plan.coalesce();
    const sampler = new BlockSampler([end], nodeRandom);
    sampler.begin([plan]);
    for (const { start, bytes } of records) {
      sampler.record(place, 1, bytes.length, 1);
      await sampler.data(file, plan, place, start, bytes);
      await file.write(bytes, start);
    }
    return sampler.finish()[0]!;
  } finally {
    await file.close();
  }
}

const image = Buffer.concat(Array.from({ length: 256 }, (_, at) => text(at)));

t.test('pieces that turned are counted once each, with and without the unchanged neighbours that a source sends', async (t) => {
  const folder = t.testdir();
  const alone = await sampled(folder, image, Array.from({ length: 32 }, (_, at) => ({ start: at * 8 * block, bytes: noise() })));
  t.match(alone, { turnedBytes: 32 * block, firstBytes: 32 * block, firstPooled: 32 * (block - 512) });
  t.ok(alone.firstChi > 150 && alone.firstChi < 400, `as of a cipher: ${alone.firstChi}`);
  const runs = await sampled(folder, image, Array.from({ length: 8 }, (_, at) => {
    const bytes = Buffer.from(image.subarray(at * 32 * block, (at * 32 + 16) * block));
    for (let piece = 1; piece < 16; piece += 4) Buffer.concat([noise(), noise()]).copy(bytes, piece * block);
    return { start: at * 32 * block, bytes };
  }));
  t.match(runs, { turnedBytes: 64 * block, firstBytes: 32 * block, sameBytes: 64 * block });
});

t.test('one long piece is one, in however many records it comes', async (t) => {
  const folder = t.testdir();
  for (const blocks of [1, 3, 64]) {
    const changes = await sampled(folder, image, Array.from({ length: 192 / blocks }, (_, at) => ({ start: (at + 1) * blocks * block, bytes: Buffer.concat(Array.from({ length: blocks }, noise)) })));
    t.match(changes, { turnedBytes: 192 * block, firstBytes: block }, `${blocks} blocks each`);
  }
});

t.test('a header that is the same in each file is not what a cipher is told by', async (t) => {
  const headed = (): Buffer => { const bytes = noise(); bytes.fill('ENCRYPTED BY US!', 0, 64); return bytes; };
  const { firstChi, firstBytes } = await sampled(t.testdir(), image, Array.from({ length: 64 }, (_, at) => ({ start: at * 4 * block, bytes: headed() })));
  t.equal(firstBytes, 64 * block);
  t.ok(firstChi < 400, `${firstChi}`);
});

t.test('whatever is encrypted and however it is cut into records: as a naive count says', async (t) => {
  const folder = t.testdir();
  // Of each block: kept and not sent, sent as it was, written with other text, encrypted; and whether a record begins here.
  const arbitrary = fc.array(fc.record({ is: fc.constantFrom('kept', 'same', 'text', 'noise', 'noise'), begins: fc.boolean() }), { minLength: 1, maxLength: 100 });
  await fc.assert(fc.asyncProperty(arbitrary, async (blocks) => {
    const records: { start: number; bytes: Buffer }[] = [];
    let [turned, first] = [0, 0];
    for (const [at, { is, begins }] of blocks.entries()) {
      if (is === 'kept') continue;
      const bytes = is === 'same' ? image.subarray(at * block, (at + 1) * block) : is === 'text' ? text(at + 500) : noise();
      const last = records.at(-1);
      const isJoined = !begins && last !== undefined && last.start + last.bytes.length === at * block;
      if (isJoined) last.bytes = Buffer.concat([last.bytes, bytes]);
      else records.push({ start: at * block, bytes });
      if (is !== 'noise') continue;
      turned += 1;
      const beside = blocks[at - 1]?.is ?? 'kept';
      if (beside === 'kept' || (beside === 'same' && isJoined)) first += 1;
    }
    const changes = await sampled(folder, image, records);
    t.strictSame([changes.turnedBytes, changes.firstBytes], [turned * block, first * block]);
  }), { numRuns: 60 });
});
