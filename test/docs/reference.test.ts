/** docs/reference is what the product's own tables make; nothing in it was written by hand, and nothing has rotted. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { z } from 'zod';
import { keysOf } from '../../scripts/reference/config-page.ts';
import { referenceFolder, referencePages } from '../../scripts/reference/pages.ts';

const root = join(import.meta.dirname, '../..');

t.test('what is committed is what the generator writes (npm run reference)', async (t) => {
  const pages = await referencePages(root);
  t.same((await readdir(join(root, referenceFolder))).sort(), [...pages.keys()].sort());
  for (const [name, text] of pages) t.equal(await readFile(join(root, referenceFolder, name), 'utf8'), text, `${name} is up to date: npm run reference`);
});

t.test('every key of a config says what it expects', async (t) => {
  const { sourceShape, targetShape } = await import('../../console/config/schema.ts');
  for (const shape of [sourceShape, targetShape]) {
    const keys = keysOf(shape);
    t.ok(keys.length > 15);
    t.same(keys.filter(({ expected }) => expected === ''), [], 'none is without');
  }
  t.ok(keysOf(targetShape).some(({ path, isNeeded }) => path === 'data' && isNeeded));
  t.ok(keysOf(targetShape).some(({ path, isNeeded }) => path === 'groups.NAME.guests.NAME.ready.within' && !isNeeded));
  t.same(keysOf(z.strictObject({ a: z.array(z.strictObject({ b: z.string() })) })).map(({ path }) => path), ['a[].b']);
});
