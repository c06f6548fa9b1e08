/** `npm run reference`: writes docs/reference anew. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { referenceFolder, referencePages } from './pages.ts';

const root = process.cwd();
const folder = join(root, referenceFolder);
const pages = await referencePages(root);
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
for (const [name, text] of pages) await writeFile(join(folder, name), text);
process.stdout.write(`${[...pages.keys()].map((name) => `${referenceFolder}/${name}\n`).join('')}`);
