/**
 * Checks the house rules that no compiler or linter knows: which folder may import which, how files and folders are
 * named, that a file says what it is, that it stays short, and that nothing of the machine it was written on is in it.
 *
 * `node scripts/tidy.mjs [folder]` prints one line per offence and exits 1 when there is any. Plain JavaScript, so that
 * it runs before anything is built.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Who may import whom. The two roles meet on the wire and nowhere else. */
const mayImport = {
  journal: [],
  host: ['journal'],
  qemu: ['journal', 'host'],
  daemon: ['journal', 'host', 'qemu'],
  'replica-target': ['journal', 'host', 'qemu'],
  console: ['journal', 'host', 'qemu', 'daemon', 'replica-target'],
  scripts: ['journal', 'host', 'qemu', 'daemon', 'replica-target', 'console'],
  test: ['journal', 'host', 'qemu', 'daemon', 'replica-target', 'console', 'scripts'],
};

const notOurs = new Set(['.git', '.tap', 'coverage', 'dist', 'node_modules']);
/** Names that say nothing. */
const emptyWords = new Set(['base', 'common', 'helper', 'helpers', 'impl', 'lib', 'manager', 'misc', 'shared', 'types', 'util', 'utils']);
const lineCountMax = 500;
/** Put together, so that this file does not find itself. */
const registries = ['registry.' + 'npmjs.org', 'registry.' + 'yarnpkg.com', 'npm.' + 'pkg.github.com'];
const machinePath = new RegExp(`(?<![\\w.$}~-])/(?:${['work', 'root', 'home', 'Users'].join('|')})/\\w`);
const kebab = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const codeEnds = /\.(tsx?|mjs|js)$/;
const textEnds = /\.(tsx?|mjs|js|json|md|ya?ml|sh|html|css|txt)$/;

/** @returns {{ path: string, line: number, rule: string, message: string }[]} */
export function findOffences(root) {
  return files(root).flatMap((path) => {
    const isScript = !basename(path).includes('.');
    if (!textEnds.test(path) && !isScript) return pathOffences(path);
    const text = readFileSync(join(root, path), 'utf8');
    return [
      ...pathOffences(path),
      ...placeOffences(path, text),
      ...(codeEnds.test(path) ? codeOffences(path, text) : []),
      ...(isScript && text.startsWith('#!') ? headerOffences(path, text) : []),
    ];
  });
}

function files(root, folder = '') {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return notOurs.has(entry.name) ? [] : files(root, path);
    return entry.isFile() ? [path] : [];
  });
}

function pathOffences(path) {
  const found = [];
  const folders = dirname(path) === '.' ? [] : dirname(path).split('/');
  for (const folder of folders) {
    if (emptyWords.has(folder)) found.push(offence(path, 1, 'folder-name', `"${folder}" says nothing about what is in it`));
    if (!kebab.test(folder.replace(/^\./, ''))) found.push(offence(path, 1, 'kebab-case', `folder "${folder}"`));
  }
  if (codeEnds.test(path)) {
    const name = basename(path).replace(/(\.test|\.config|\.d)?\.\w+$/, '');
    if (!kebab.test(name)) found.push(offence(path, 1, 'kebab-case', `file "${basename(path)}"`));
    if (name.split('-').some((word) => emptyWords.has(word))) found.push(offence(path, 1, 'file-name', `"${name}" says nothing about what is in it`));
  }
  return found;
}

function placeOffences(path, text) {
  return text.split('\n').flatMap((line, at) => [
    ...(machinePath.test(line) ? [offence(path, at + 1, 'machine-path', line.trim().slice(0, 100))] : []),
    ...(registries.some((host) => line.includes(host)) ? [offence(path, at + 1, 'registry', line.trim().slice(0, 100))] : []),
  ]);
}

function codeOffences(path, text) {
  // A test's name and its first line say what it is.
  const found = path.endsWith('.test.ts') ? [] : headerOffences(path, text);
  const lines = text.split('\n');
  if (lines.length > lineCountMax) found.push(offence(path, lines.length, 'length', `${lines.length} lines, at most ${lineCountMax}`));
  if (isBarrel(path, text)) found.push(offence(path, 1, 'barrel', 'a file that only passes others on'));
  const from = path.split('/')[0];
  for (const { specifier, line } of imports(text)) {
    if (!specifier.startsWith('.')) continue;
    const to = relative('/', resolve('/', dirname(path), specifier)).split('/')[0];
    if (from === to || !(from in mayImport)) continue;
    if (!mayImport[from].includes(to)) found.push(offence(path, line, 'import-direction', `${from} must not import ${to}`));
  }
  lines.forEach((line, at) => {
    if (path.startsWith('test/') && /\bt\.only\(|\bonly: true\b/.test(line)) found.push(offence(path, at + 1, 'only', 'the other tests would not run'));
  });
  return found;
}

function headerOffences(path, text) {
  const first = text.replace(/^#!.*\n/, '').trimStart();
  const isComment = first.startsWith('/**') || (text.startsWith('#!') && first.startsWith('#'));
  return isComment ? [] : [offence(path, 1, 'header', 'the file does not begin by saying what it is')];
}

function isBarrel(path, text) {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '').trim();
  const isOnlyPassedOn = code !== '' && code.replace(/export\s+(?:type\s+)?(?:\*(?:\s+as\s+\w+)?|\{[^}]*\})\s+from\s+['"][^'"]+['"];?/g, '').trim() === '';
  return isOnlyPassedOn || /^index\./.test(basename(path));
}

function imports(text) {
  return [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)['"]([^'"]+)['"]/g)].map((match) => ({
    specifier: match[1],
    line: text.slice(0, match.index).split('\n').length,
  }));
}

function offence(path, line, rule, message) {
  return { path, line, rule, message };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const root = resolve(process.argv[2] ?? join(import.meta.dirname, '..'));
  const offences = findOffences(root);
  for (const { path, line, rule, message } of offences) console.log(`${path}:${line}: ${rule}: ${message}`);
  process.exitCode = offences.length === 0 ? 0 : 1;
}
