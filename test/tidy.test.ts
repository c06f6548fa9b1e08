/** scripts/tidy.mjs finds each kind of offence, and nothing in a tree that keeps the rules. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';

const tidy = join(import.meta.dirname, '..', 'scripts', 'tidy.mjs');
const header = '/** What it is. */\n';

const kept = {
  '.ci': { run: '#!/usr/bin/env bash\n# Runs the tests.\ntrue\n' },
  'README.md': '# Project\n\nSee `/run/guest.qmp` and ${HOME}/work/x, ~/home/y and dist/root/z.\n',
  'package.json': '{}\n',
  journal: { 'seal.ts': `${header}export const one = 1;\n` },
  daemon: { capture: { 'cycle-plan.ts': `${header}import { one } from '../../journal/seal.ts';\nimport path from 'node:path';\nexport const two = one + path.sep.length;\n` } },
  test: { 'seal.test.ts': `${header}import { one } from '../journal/seal.ts';\nimport t from 'tap';\nt.equal(one, 1);\n` },
  node_modules: { utils: { 'Index.ts': '' } },
};

function offencesOf(t: { equal(found: unknown, wanted: unknown, message: string): boolean }, folder: string): string[] {
  const { stdout, status } = spawnSync(process.execPath, [tidy, folder], { encoding: 'utf8' });
  const lines = stdout.split('\n').filter((line) => line !== '');
  t.equal(status, lines.length === 0 ? 0 : 1, 'the exit status says whether there was anything');
  return lines.map((line) => line.split(': ', 2).join(': '));
}

t.test('a tree that keeps the rules', (t) => {
  t.strictSame(offencesOf(t, t.testdir(kept)), []);
  t.end();
});

t.test('each kind of offence, with its file and line', (t) => {
  const cases: Record<string, { readonly tree: NonNullable<Parameters<typeof t.testdir>[0]>; readonly expected: readonly string[] }> = {
    'a role imports the other': {
      tree: { daemon: { 'cycle.ts': `${header}\nimport { apply } from '../replica-target/apply.ts';\napply();\n` } },
      expected: ['daemon/cycle.ts:3: import-direction'],
    },
    'the journal imports anything of ours, even by type or dynamically': {
      tree: { journal: { 'a.ts': `${header}import type { Clock } from '../host/clock.ts';\nexport const b = (c: Clock) => [c, import('../qemu/qmp.ts')];\n` } },
      expected: ['journal/a.ts:2: import-direction', 'journal/a.ts:3: import-direction'],
    },
    'the product imports its tests': {
      tree: { console: { 'main.ts': `${header}import { wait } from '../test/support/wait.ts';\nwait();\n` } },
      expected: ['console/main.ts:2: import-direction'],
    },
    'a barrel': {
      tree: { qemu: { 'all.ts': `${header}export * from './qmp.ts';\nexport { a, b } from './nbd.ts';\n` } },
      expected: ['qemu/all.ts:1: barrel'],
    },
    'an index': { tree: { qemu: { 'index.ts': `${header}export const a = 1;\n` } }, expected: ['qemu/index.ts:1: barrel'] },
    'no header': {
      tree: { qemu: { 'qmp.ts': `import a from 'a';\n${header}export const b = a;\n` }, scripts: { run: '#!/bin/sh\necho\n' } },
      expected: ['qemu/qmp.ts:1: header', 'scripts/run:1: header'],
    },
    'names that say nothing': {
      tree: { daemon: { utils: { 'a.ts': header }, 'queue-manager.ts': header } },
      expected: ['daemon/queue-manager.ts:1: file-name', 'daemon/utils/a.ts:1: folder-name'],
    },
    'not kebab-case': {
      tree: { daemon: { 'guestDisk.ts': header, Capture: { 'a.ts': header } } },
      expected: ['daemon/Capture/a.ts:1: kebab-case', 'daemon/guestDisk.ts:1: kebab-case'],
    },
    'too long': { tree: { daemon: { 'a.ts': header + '\n'.repeat(500) } }, expected: ['daemon/a.ts:502: length'] },
    'a path of one machine': {
      tree: { 'README.md': 'a\nrun /ho' + 'me/me/x\n', console: { 's.yaml': 'spool: /ro' + 'ot/spool\n' } },
      expected: ['README.md:2: machine-path', 'console/s.yaml:1: machine-path'],
    },
    'a registry': { tree: { 'package-lock.json': '{\n"resolved": "https://registry.npm' + 'js.org/a"}\n' }, expected: ['package-lock.json:2: registry'] },
    'a test that runs alone': { tree: { test: { 'a.test.ts': `${header}t.on` + `ly('x');\n` } }, expected: ['test/a.test.ts:2: only'] },
  };
  for (const [name, { tree, expected }] of Object.entries(cases)) {
    t.test(name, (t) => {
      t.strictSame(offencesOf(t, t.testdir(tree)).sort(), [...expected].sort());
      t.end();
    });
  }
  t.end();
});
