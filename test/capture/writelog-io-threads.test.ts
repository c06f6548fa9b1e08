/** The matrix of matrix-cells.ts with write logs, disks with one I/O thread per disk. */
import t from 'tap';
import { runCells } from './support/matrix-cells.ts';

runCells(t, true, 'writelog');
