/** A process that asks an empty QEMU and never gets to the end of it: started by a test, which kills it. Its first line is the QEMU's pid. */
import { readFileSync } from 'node:fs';
import { askEmptyQemu } from '../../qemu/empty-qemu.ts';

const [program = '', pidFile = ''] = process.argv.slice(2);
await askEmptyQemu(program, 'tcg', async () => {
  process.stdout.write(readFileSync(pidFile, 'utf8'));
  await new Promise(() => undefined);
}, 60_000);
