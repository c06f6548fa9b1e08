/** The matrix of guests (support/matrix-cells.ts) whose disks are in QEMU's main loop. */
import t from 'tap';
import { runCells } from './support/matrix-cells.ts';

runCells(t, false);
