/**
 * Whose turn it is to pass over a whole guest: of all guests of one link only a few at a time, the others in the order in which
 * they asked. Side by side they would be no faster, and each would wait longer for the link than QEMU may be made to wait
 * (mirror-pass.ts). It knows no guest and no link.
 */
import { Turns } from '../turns.ts';

/** Two: while one guest's pass begins or ends, another keeps the link busy. */
const passesAtOnce = 2;

export class PassTurns extends Turns {
  constructor() { super(passesAtOnce); }
}
