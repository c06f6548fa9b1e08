/** The source role of this host, as the target role asks it to follow guests that were started here: over its control socket, as whoever this process is: where that is another user, it is one that the source's config names. */
import type { AdoptedGuest, LocalSource } from '../replica-target/operations.ts';
import { SourceClient } from './control-client.ts';

export function localSourceAt(controlPath: string): LocalSource {
  const client = new SourceClient(controlPath);
  return {
    sourceId: () => client.sourceId(),
    adopt: (guest: AdoptedGuest) => client.adopt(guest),
    surrender: (groupId, term) => client.surrender(groupId, term),
    abandon: (groupId) => client.abandon(groupId),
  };
}
