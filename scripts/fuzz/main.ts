/**
 * `npm run fuzz`: gives the decoders of what others wrote bytes that nobody wrote. Exit code 1: one of them crashed; its input lies in a
 * file outside of the tree then, and `--replay FILE --decoder NAME` gives it to the decoder once more.
 */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { isFault } from '../../journal/fault.ts';
import { decoders } from './decoders.ts';
import { plantedNames } from './planted.ts';
import { fuzz } from './referee.ts';

interface Options { readonly seconds: number; readonly decoder?: readonly string[]; readonly seed: number; readonly inputs: number; readonly planted?: readonly string[]; readonly replay?: string; readonly json?: true }

function readNumber(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 1_000_000_000)) throw new InvalidArgumentError('Expected a number above 0.');
  return value;
}

const names = decoders().map(({ name }) => name);
const options = new Command('fuzz').description('decoders of what others wrote, under bytes that nobody wrote')
  .option('--seconds <count>', 'for all of them together', readNumber, 60)
  .addOption(new Option('--decoder <names...>', 'these alone').choices(names))
  .option('--seed <seed>', 'of what is changed', readNumber, 1)
  .option('--inputs <count>', 'for each decoder at most', readNumber, 1_000_000_000)
  .addOption(new Option('--planted <names...>', 'decoders with these defects, alone').choices(plantedNames))
  .option('--replay <file>', 'one input, given to the one decoder that is named')
  .option('--json', 'figures as JSON')
  .parse().opts<Options>();

const chosen = options.planted ?? options.decoder ?? names;
if (options.replay !== undefined) await replay(options.replay, chosen);
else {
  const startedMs = performance.now();
  const { figures, crashes, memoryPeakBytes } = await fuzz({
    decoders: chosen, seed: options.seed, msEach: options.seconds * 1000 / chosen.length, inputsMax: options.inputs, isPlanted: options.planted !== undefined,
  });
  const saved = crashes.map(({ input, ...crash }) => ({ ...crash, seed: options.seed, inputBytes: input.length, file: save(crash.decoder, input) }));
  const total = {
    seconds: Math.round((performance.now() - startedMs) / 1000), seed: options.seed, decoders: chosen.length, inputs: figures.reduce((sum, { inputs }) => sum + inputs, 0),
    blocks: figures.reduce((sum, { blocks }) => sum + blocks, 0), crashes: saved.length, memoryPeakBytes,
  };
  process.stdout.write(options.json === true ? `${JSON.stringify({ ...total, figures, crashes: saved }, null, 2)}\n` : table());
  process.exitCode = saved.length === 0 ? 0 : 1;

  function table(): string {
    const lines = figures.map(({ decoder, inputs, accepted, kept, blocks, bufferBytesPeak, msMax }) => (
      `${decoder.padEnd(18)}${String(inputs).padStart(10)}${String(accepted).padStart(10)}${String(kept).padStart(7)}${String(blocks).padStart(8)}${mebibytes(bufferBytesPeak).padStart(13)}${String(msMax).padStart(9)}`));
    return [
      `${'decoder'.padEnd(18)}${'inputs'.padStart(10)}${'valid'.padStart(10)}${'kept'.padStart(7)}${'blocks'.padStart(8)}${'buffers MiB'.padStart(13)}${'ms max'.padStart(9)}`, ...lines, '',
      ...saved.flatMap(({ decoder, kind, what, file, inputBytes }) => [`CRASH ${decoder} (${kind}): ${what}`, `  seed ${options.seed}, input of ${inputBytes} bytes: ${file}`, '']),
      `${total.inputs} inputs for ${total.decoders} decoders in ${total.seconds} s, crashes ${total.crashes}, peak memory ${mebibytes(total.memoryPeakBytes)} MiB`, '',
    ].join('\n');
  }
}

function mebibytes(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(1);
}

function save(decoder: string, input: Buffer): string {
  const path = join(mkdtempSync(join(tmpdir(), 'afterimage-fuzz-')), `${decoder}.input`);
  writeFileSync(path, input);
  return path;
}

async function replay(file: string, [name, ...others]: readonly string[]): Promise<void> {
  if (name === undefined || others.length > 0) throw new Error('--replay needs one --decoder');
  const decoder = decoders().find((one) => one.name === name)!;
  try {
    await decoder.decode(readFileSync(file));
    process.stdout.write('taken for valid\n');
  } catch (error) {
    if (!isFault(error)) throw error;
    process.stdout.write(`${error.code}: ${error.message}\n`);
  } finally {
    await decoder.close?.();
  }
}
