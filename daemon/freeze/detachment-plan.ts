/**
 * How the watchdog is started so that it outlives the daemon, and whether what came of that is good enough. Pure.
 *
 * A session of its own survives the daemon's SIGKILL, its terminal and its process group. It does not survive a service manager
 * that kills the daemon's whole control group: for that it needs a group of its own, which `systemd-run --scope` makes, or a unit that ends the
 * main process alone (`KillMode=process`, as ours does, and says so in AFTERIMAGE_KILL_MODE: a daemon without root's powers can ask for no scope). In a
 * container without systemd there is nothing that a process could get away from, but the end of the container ends nothing less.
 */
export interface DetachmentFacts {
  /** systemd runs this host (sd_booted(3): /run/systemd/system is there). */
  readonly hasSystemd: boolean;
  readonly isRoot: boolean;
  /** /proc/self/cgroup of the daemon. */
  readonly controlGroup: string;
  /** The unit says that nothing but the daemon itself is ended with it. */
  readonly isDaemonKilledAlone?: boolean;
}

/** Commands to put ahead of the watchdog's, to be tried in this order. */
export function planDetachment({ hasSystemd, isRoot, isDaemonKilledAlone = false }: DetachmentFacts): readonly (readonly string[])[] {
  if (!hasSystemd || isDaemonKilledAlone) return [[]];
  return [['systemd-run', ...(isRoot ? [] : ['--user']), '--scope', '--quiet', '--collect', '--'], []];
}

/** Null when it is; else why not, for people. */
export function judgeDetachment({ hasSystemd, controlGroup, isDaemonKilledAlone = false }: DetachmentFacts, ofWatchdog: string): string | null {
  const isService = hasSystemd && !isDaemonKilledAlone && /\.service(\/|\n|$)/.test(controlGroup);
  if (!isService || ofWatchdog.trim() !== controlGroup.trim()) return null;
  return 'the daemon runs as a systemd service, and the watchdog could only be started in the same control group, with which systemd would kill it (is systemd-run there, and allowed?)';
}
