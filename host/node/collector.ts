/**
 * How often V8 collects the old generation. It counts the memory of buffers in, but sizes its room by the heap alone: a heap
 * of 20 MiB gets 8 MiB of room, which a daemon that passes 200 MiB/s through buffers uses up many times a second, and each
 * collection marks everything (measured: 30 % of all processor time of a source and a target that send and take a delta).
 */
import { getHeapStatistics, setFlagsFromString } from 'node:v8';

const roomBytes = 64 * 1024 * 1024;
/** Not less than V8's own for large heaps, nor more than makes sense for the smallest. */
const percentMin = 50;
const percentMax = 400;
const lookMs = 10_000;

/** From now on there is room for some 64 MiB, whatever the heap, between two such collections. For processes that run long. */
export function collectSeldom(): void {
  const adjust = (): void => {
    const percent = roomBytes / getHeapStatistics().used_heap_size * 100;
    // V8 11.3, src/flags/flag-definitions.h; read at each collection.
    setFlagsFromString(`--heap-growing-percent=${Math.round(Math.min(percentMax, Math.max(percentMin, percent)))}`);
  };
  adjust();
  setInterval(adjust, lookMs).unref();
}
