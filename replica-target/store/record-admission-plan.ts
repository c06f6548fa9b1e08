/**
 * Whether an arriving record may be taken at all, before its predecessor is looked at: whose it is, of which term, and whether it
 * lies within its disk. Pure; returns the fault to refuse it with. The order of records is record-order-plan.ts.
 */
import { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import type { GroupFacts } from './group-facts.ts';
import { hexId } from './record-order-plan.ts';
import { payloadFault } from './record-payload.ts';

/** A record of a delta. Faults: TERM_OLD, RECORD_MISPLACED, RECORD_CORRUPT. */
export function deltaRecordFault(facts: GroupFacts, record: RecordView): Fault | null {
  const { header } = record;
  const { term, name } = facts;
  if (header.groupId !== facts.groupId) return misplaced(facts, `of group ${header.groupId}`, record);
  if (header.term < term) return new Fault('TERM_OLD', `a record of term ${header.term}; ${name} is in term ${term}`, { group: name, term });
  if (header.term > term) return misplaced(facts, `of term ${header.term}, which was not announced`, record);
  if (facts.seed !== 'done') return misplaced(facts, 'a delta before the first sync has ended', record);
  return runFault(facts, record);
}

/** A record of a first sync; `seedDeltaId` is null when none is under way. Faults: RECORD_MISPLACED, RECORD_CORRUPT. */
export function seedRecordFault(facts: GroupFacts, seedDeltaId: string | null, record: RecordView): Fault | null {
  const { header } = record;
  if (seedDeltaId === null) return misplaced(facts, 'no first sync is under way', record);
  if (header.groupId !== facts.groupId) return misplaced(facts, `of group ${header.groupId}`, record);
  if (header.point !== 0 || hexId(header.deltaId) !== seedDeltaId) {
    return misplaced(facts, `of delta ${hexId(header.deltaId)}, point ${header.point}, in the first sync ${seedDeltaId}`, record);
  }
  if (header.kind !== 'data' && header.kind !== 'zero') return misplaced(facts, 'only runs of bytes belong in a first sync', record);
  return runFault(facts, record);
}

export function misplaced({ name }: GroupFacts, why: string, { header }: RecordView): Fault {
  const { kind, disk, term, point, sequence, offset, length } = header;
  return new Fault('RECORD_MISPLACED', `${name}: a ${kind} record that does not belong here: ${why}`, { group: name, disk, term, point, sequence, offset, length });
}

function runFault(facts: GroupFacts, record: RecordView): Fault | null {
  const { header } = record;
  if (header.kind !== 'data' && header.kind !== 'zero') return null;
  const known = facts.disks.find((one) => one.disk === header.disk);
  if (known === undefined) return misplaced(facts, `of disk ${header.disk}, which was not announced`, record);
  if (header.offset + header.length > known.sizeBytes) {
    return misplaced(facts, `bytes ${header.offset} to ${header.offset + header.length} of a disk of ${known.sizeBytes}`, record);
  }
  const wrong = payloadFault(record);
  return wrong === null ? null : new Fault('RECORD_CORRUPT', `${facts.name}: ${wrong}`, { group: facts.name, disk: header.disk, offset: header.offset });
}
