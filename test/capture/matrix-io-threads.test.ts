/** The matrix of guests (support/matrix-cells.ts) in which every disk has an I/O thread of its own. */
import t from 'tap';
import { runCells } from './support/matrix-cells.ts';

runCells(t, true);
