/** Whether a source may announce a group that is here already, decided from what is known of it. Pure; returns the fault to refuse it with. */
import { Fault } from '../../journal/fault.ts';
import type { GroupAnnouncement } from '../../journal/wire.ts';
import type { GroupFacts } from './group-facts.ts';

/** `isFenced`: a failover is under way or done. Faults: GROUP_FOREIGN, TERM_OLD, GROUP_FAILED_OVER. */
export function announcementFault({ name, term, fencedBelow, sourceId: owner }: GroupFacts, isFenced: boolean, sourceId: string, announcement: GroupAnnouncement): Fault | null {
  const facts = { group: name, term };
  if (sourceId !== owner) return new Fault('GROUP_FOREIGN', `the group ${name} belongs to another source`, facts);
  if (announcement.term < fencedBelow) return new Fault('TERM_OLD', `${name} is in term ${term} here, the source in ${announcement.term}`, facts);
  if (!isFenced) return null;
  if (announcement.term < term) return new Fault('TERM_OLD', `${name} failed over: it is in term ${term} here, the source in ${announcement.term}`, facts);
  return new Fault('GROUP_FAILED_OVER', `${name} has failed over and takes no deltas`, facts);
}

/** Disks as the group's facts keep them. */
export function announcedDisks(announcement: GroupAnnouncement): GroupFacts['disks'] {
  return announcement.disks.map(({ disk, name, sizeBytes }) => ({ disk, name, sizeBytes })).sort((a, b) => a.disk - b.disk);
}
