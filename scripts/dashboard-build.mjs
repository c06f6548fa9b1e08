/**
 * Builds the dashboard: a script, its parts that are loaded when they are needed, and one style sheet, with a hash in their names, compressed once and not at each request. Needs nothing
 * but what `npm ci` brings. `node scripts/dashboard-build.mjs [folder]`; the folder is `dist/console/dashboard/assets` when left out.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const source = join(import.meta.dirname, '..', 'console', 'dashboard');
const folder = process.argv[2] ?? join(import.meta.dirname, '..', 'dist', 'console', 'dashboard', 'assets');

const { outputFiles, metafile } = await build({
  entryPoints: { app: join(source, 'app.tsx'), style: join(source, 'style.css') },
  metafile: true, bundle: true, splitting: true, minify: true, write: false, format: 'esm', target: 'es2022', outdir: folder, entryNames: '[name]-[hash]', chunkNames: 'part-[hash]', jsx: 'automatic', jsxImportSource: 'preact', legalComments: 'none', logLevel: 'warning',
  tsconfig: join(source, 'tsconfig.json'),
});
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const named = (begin, ending) => basename(outputFiles.find(({ path }) => basename(path).startsWith(begin) && path.endsWith(ending)).path);
// What the script needs at once is asked for beside it, not after it.
const needed = Object.entries(metafile.outputs).find(([path]) => basename(path) === named('app-', '.js'))[1].imports.filter(({ kind }) => kind === 'import-statement');
const ahead = needed.map(({ path }) => `<link rel="modulepreload" href="/${basename(path)}">`).join('\n');
const page = readFileSync(join(source, 'index.html'), 'utf8').replace('__STYLE__', named('style-', '.css')).replace('__SCRIPT__', named('app-', '.js')).replace('<!-- __AHEAD__ -->', ahead);
const files = [...outputFiles.map(({ path, contents }) => [basename(path), Buffer.from(contents)]), ['index.html', Buffer.from(page)]];
for (const [name, bytes] of files) {
  writeFileSync(join(folder, name), bytes);
  writeFileSync(join(folder, `${name}.br`), brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } }));
  writeFileSync(join(folder, `${name}.gz`), gzipSync(bytes, { level: 9 }));
}
