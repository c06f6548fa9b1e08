/** Whether a source may announce a group that is here already, decided from what is known of it. Pure; returns the fault to refuse it with. */
import { Fault } from '../../journal/fault.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import type { GroupFacts } from './group-facts.ts';

/** `isFenced`: a failover is under way or done, and not committed. Faults: GROUP_FOREIGN, TERM_OLD, GROUP_FAILED_OVER, GROUP_UNCOMMITTED, GROUP_RENAMED. */
export function announcementFault({ name, term, fencedBelow, sourceId: owner, formerSourceIds }: GroupFacts, isFenced: boolean, sourceId: string, announcement: GroupAnnouncement, hasPoints: boolean): Fault | null {
  const facts = { group: name, term };
  if (sourceId !== owner) {
    return formerSourceIds.includes(sourceId)
      ? new Fault('TERM_OLD', `${name} is in term ${term} here and belongs to another source since; this one is in ${announcement.term}`, facts)
      : new Fault('GROUP_FOREIGN', `the group ${name} belongs to another source`, facts);
  }
  if (announcement.term < fencedBelow) return new Fault('TERM_OLD', `${name} is in term ${term} here, the source in ${announcement.term}`, facts);
  // What is kept of a group goes by its name: a source does not choose it anew.
  if (hasPoints && announcement.name !== name) return new Fault('GROUP_RENAMED', `the group is ${name} here and has points: it cannot become ${announcement.name}`, facts);
  if (!isFenced) return null;
  if (announcement.term < term) return new Fault('TERM_OLD', `${name} failed over: it is in term ${term} here, the source in ${announcement.term}`, facts);
  // Its own source, of the guest that runs here.
  if (formerSourceIds.length > 0 && announcement.term === term) return new Fault('GROUP_UNCOMMITTED', `the failover of ${name} is not committed yet`, facts);
  return new Fault('GROUP_FAILED_OVER', `${name} has failed over and takes no deltas`, facts);
}

/** What changes when the group goes to another source. */
export function ownedBy({ sourceId: owner, formerSourceIds }: GroupFacts, sourceId: string): Pick<GroupFacts, 'sourceId' | 'formerSourceIds'> {
  return { sourceId, formerSourceIds: [...formerSourceIds, owner].filter((one, at, all) => one !== sourceId && all.indexOf(one) === at) };
}

/** What changes when a committed failover has gone back. Fault GROUP_FOREIGN: it is not `from` who may say so. */
export function handedOver(facts: GroupFacts, from: string, term: number, to: string): Partial<GroupFacts> {
  const { sourceId: owner, formerSourceIds, term: before, name } = facts;
  if (owner === to && before >= term && formerSourceIds.includes(from)) return {};
  if (owner !== from || term <= before) throw new Fault('GROUP_FOREIGN', `the group ${name} is not that source’s to give away in term ${term}`, { group: name, term: before });
  return { ...ownedBy(facts, to), term, fencedBelow: term, state: 'protected' };
}

/** Disks as the group's facts keep them. */
export function announcedDisks(announcement: GroupAnnouncement): GroupFacts['disks'] {
  return announcement.disks.map(({ disk, name, sizeBytes }) => ({ disk, name, sizeBytes })).sort((a, b) => a.disk - b.disk);
}
