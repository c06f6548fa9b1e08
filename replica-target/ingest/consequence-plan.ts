/**
 * What a failure means for the peer (PROTOCOL.md, "Faults"). Pure. `held`: the target is at fault and will be well again;
 * the group waits. `refused`: this group cannot go on, the connection can. `closed`: the peer broke the protocol, and
 * nothing more of it is believed.
 */
import type { FaultCode } from '../../journal/fault.ts';

export type Consequence = 'held' | 'refused' | 'closed';

export function planConsequence(code: FaultCode): Consequence {
  switch (code) {
    case 'STORE_FULL': case 'STORE_SYNC': case 'RETENTION_FULL': case 'VOLUME_EXCEEDED': return 'held';
    case 'WIRE_GARBAGE': case 'WIRE_VERSION': case 'WIRE_OVERSIZED': case 'WIRE_SECRET': case 'WIRE_SILENT':
    case 'RECORD_CORRUPT': case 'RECORD_MISPLACED': return 'closed';
    default: return 'refused';
  }
}
