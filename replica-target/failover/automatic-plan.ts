/** When a group fails over without being asked, as a pure decision over what the witness, the store and the links say. Nobody knows from here that a host is lost: only that it has let its lease end. */
import type { WitnessView } from '../../host/witness.ts';

export interface AutomaticFailover {
  /** How long nobody must have held the group's lease, beyond the lease's own time, ms. */
  readonly afterMs: number;
}

export interface AutomaticFacts {
  /** Null: it could not be asked. */
  readonly view: WitnessView | null;
  readonly state: 'protected' | 'failed-over' | 'committed';
  readonly term: number;
  readonly hasPoint: boolean;
  /** Its source talks to this target. */
  readonly isConnected: boolean;
}

export type AutomaticStep =
  /** It is well, or not this target's to judge. `why`: for people. */
  | { readonly step: 'watch'; readonly why: string; readonly isHeld: boolean }
  /** Nobody holds it: the time runs. */
  | { readonly step: 'count' };

export function planAutomatic({ view, state, term, hasPoint, isConnected }: AutomaticFacts): AutomaticStep {
  const watch = (why: string, isHeld = false): AutomaticStep => ({ step: 'watch', why, isHeld });
  if (state !== 'protected') return watch('it runs here');
  if (view === null) return watch('the witness could not be asked');
  if (view.record === null) return watch('its source never told the witness of it');
  if (view.record.term > term) return watch(`${view.record.by} claimed term ${view.record.term}`);
  const [holder] = view.holders;
  if (holder !== undefined) return watch(`${holder.by} holds its lease`, true);
  if (isConnected) return watch('nobody holds its lease, and its source still talks to this target');
  if (!hasPoint) return watch('nobody holds its lease, and there is no point of it yet');
  return { step: 'count' };
}
