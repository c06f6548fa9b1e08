/** SECURITY.md names tests as what shows its claims: each of them is there. */
import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
import { decoders } from '../../scripts/fuzz/decoders.ts';

const root = new URL('../../', import.meta.url);
const page = readFileSync(new URL('SECURITY.md', root), 'utf8');

t.test('every test that the threat table names exists, and every threat names one', async (t) => {
  const table = /## Threats\n\n([^#]*)\n## /.exec(page)![1]!;
  const rows = table.trim().split('\n').slice(2);
  t.ok(rows.length > 20);
  for (const row of rows) {
    const cells = row.slice(1, -1).split(' | ');
    t.equal(cells.length, 4, row.slice(0, 60));
    const named = [...cells[3]!.matchAll(/`(test\/[\w./-]+\.test\.ts)`/g)].map(([, path]) => path!);
    t.ok(named.length > 0, cells[1]!);
    for (const path of named) t.ok(existsSync(new URL(path, root)), path);
  }
  for (const [, path] of page.matchAll(/`(test\/[^`]+)`/g)) t.ok(existsSync(new URL(path!, root)), path!);
});

t.test('the decoders have names of their own', async (t) => {
  const names = decoders().map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
});
