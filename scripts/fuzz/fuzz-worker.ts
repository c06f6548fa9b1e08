/** The process in which decoders run, one after the other (referee.ts watches it). */
import { once } from 'node:events';
import { watchAllocations } from './allocations.ts';
import { CoverageWatch } from './coverage.ts';
import { decoders } from './decoders.ts';
import { fuzzOne } from './fuzz-one.ts';
import { planted } from './planted.ts';
import { InputNote, type WorkerNews, type WorkerOrder } from './referee.ts';

// What is thrown in a callback of a socket is thrown where nobody waits: it would end a daemon.
let stray: unknown = null;
process.on('uncaughtException', (error) => { stray ??= error; });
process.on('unhandledRejection', (error) => { stray ??= error; });
function takeStray(): unknown {
  const taken = stray;
  stray = null;
  return taken;
}

// Who watches is gone: nobody would end an input that does not end.
process.on('disconnect', () => process.exit(1));

async function tell(news: WorkerNews): Promise<void> {
  await new Promise<void>((resolve, reject) => { process.send!(news, undefined, undefined, (error) => { if (error === null) resolve(); else reject(error); }); });
}

const [order] = await once(process, 'message') as [WorkerOrder];
const note = new InputNote(order.notePath);
watchAllocations();
const coverage = new CoverageWatch();
const known = order.isPlanted ? order.decoders.map(planted) : decoders();
try {
  for (const name of order.decoders) {
    const decoder = known.find((one) => one.name === name)!;
    await tell({ news: 'decoder', decoder: name });
    const { figures, crash } = await fuzzOne(decoder, { seed: order.seed, untilMs: performance.now() + order.msEach, inputsMax: order.inputsMax, coverage, onInput: (input) => note.put(input), takeStray });
    await tell({ news: 'done', figures, crash, memoryPeakBytes: process.resourceUsage().maxRSS * 1024 });
    await decoder.close?.();
  }
} catch (error) {
  // Thrown by the fuzzer itself: among what is thrown in callbacks it would be lost, and the process would wait for ever.
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`, () => process.exit(2));
  await new Promise(() => undefined);
}
coverage.close();
process.exit(0);
