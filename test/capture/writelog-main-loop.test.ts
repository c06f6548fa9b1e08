/** The matrix of matrix-cells.ts with write logs, disks on the main loop. */
import t from 'tap';
import { runCells } from './support/matrix-cells.ts';

runCells(t, false, 'writelog');
