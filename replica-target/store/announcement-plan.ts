/** Whether a source may announce a group that is here already, decided from what is known of it. Pure; returns the fault to refuse it with. */
import { Fault } from '../../journal/fault.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import type { GroupFacts } from './group-facts.ts';

/**
 * Terms count failovers, and a target must always be able to enter a higher one: whatever a source announces stays below half of
 * what a record can name. So a stolen key cannot bring a group to where no failover is possible.
 */
export const termAnnouncedMax = 0x7fffffff;

/** `isFenced`: a failover is under way or done, and not committed. Faults: GROUP_FOREIGN, TERM_OLD, GROUP_FAILED_OVER, GROUP_UNCOMMITTED, GROUP_RENAMED, WIRE_GARBAGE. */
export function announcementFault({ name, term, fencedBelow, sourceId: owner, formerSourceIds }: GroupFacts, isFenced: boolean, sourceId: string, announcement: GroupAnnouncement): Fault | null {
  const facts = { group: name, term };
  if (sourceId !== owner) {
    return formerSourceIds.includes(sourceId)
      ? new Fault('TERM_OLD', `${name} is in term ${term} here and belongs to another source since; this one is in ${announcement.term}`, facts)
      : new Fault('GROUP_FOREIGN', `the group ${name} belongs to another source`, facts);
  }
  if (announcement.term < fencedBelow) return new Fault('TERM_OLD', `${name} is in term ${term} here, the source in ${announcement.term}`, facts);
  const high = termFault(announcement.term, term);
  if (high !== null) return high;
  // By its name a group is found, and its retention is chosen: neither is the source's to change.
  if (announcement.name !== name) return new Fault('GROUP_RENAMED', `the group is ${name} here, and cannot become ${announcement.name}: what it is called is not changed by its source`, facts);
  if (!isFenced) return null;
  if (announcement.term < term) return new Fault('TERM_OLD', `${name} failed over: it is in term ${term} here, the source in ${announcement.term}`, facts);
  // Its own source, of the guest that runs here.
  if (formerSourceIds.length > 0 && announcement.term === term) return new Fault('GROUP_UNCOMMITTED', `the failover of ${name} is not committed yet`, facts);
  return new Fault('GROUP_FAILED_OVER', `${name} has failed over and takes no deltas`, facts);
}

/** `term`: what the group is in; 0 for one that is not here yet. */
export function termFault(announced: number, term: number): Fault | null {
  return announced > Math.max(termAnnouncedMax, term) ? new Fault('WIRE_GARBAGE', `term ${announced} is beyond what failovers lead to`) : null;
}

/** What changes when the group goes to another source. */
export function ownedBy({ sourceId: owner, formerSourceIds }: GroupFacts, sourceId: string): Pick<GroupFacts, 'sourceId' | 'formerSourceIds'> {
  return { sourceId, formerSourceIds: [...formerSourceIds, owner].filter((one, at, all) => one !== sourceId && all.indexOf(one) === at) };
}

/** What changes when a committed failover has gone back. Fault GROUP_FOREIGN: it is not `from` who may say so. */
export function handedOver(facts: GroupFacts, from: string, term: number, to: string): Partial<GroupFacts> {
  const { sourceId: owner, formerSourceIds, term: before, name } = facts;
  if (owner === to && before >= term && formerSourceIds.includes(from)) return {};
  // A group whose guest never ran here has nobody to go back to.
  if (owner !== from || term <= before || facts.state === 'protected' || termFault(term, before) !== null) throw new Fault('GROUP_FOREIGN', `the group ${name} is not that source’s to give away in term ${term}`, { group: name, term: before });
  return { ...ownedBy(facts, to), term, fencedBelow: term, state: 'protected' };
}

/** Disks as the group's facts keep them. */
export function announcedDisks(announcement: GroupAnnouncement): GroupFacts['disks'] {
  return announcement.disks.map(({ disk, name, sizeBytes }) => ({ disk, name, sizeBytes })).sort((a, b) => a.disk - b.disk);
}
