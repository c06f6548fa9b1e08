/**
 * Paths of unix sockets that belong to one user: `user://UID/PATH`. Who connects to one says nothing to a listener of another user (node/listener.ts).
 */
export interface ListenerPath {
  readonly path: string;
  /** Undefined: whoever listens there. */
  readonly uid?: number | undefined;
}

/** The largest number of a user; the one above means none (setreuid(2)). */
export const uidMax = 0xffff_fffe;

/** `user://UID/PATH`, and as it is whatever is nothing of the kind. */
export function splitListener(text: string): ListenerPath {
  const found = /^user:\/\/(\d{1,10})(\/[^\0]*)$/.exec(text);
  return found === null || Number(found[1]) > uidMax ? { path: text } : { path: found[2]!, uid: Number(found[1]) };
}

export function ofListener(path: string, uid: number): string {
  return `user://${uid}${path}`;
}
