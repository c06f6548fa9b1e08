/**
 * Which QMP monitors a command line has beside its manager's, and where they listen: one of those is ours to connect to. Pure.
 */

/** What marks a monitor as ours, whatever folder it lies in. */
export const ownMonitorName = 'afterimage.qmp';

/** Unix sockets of QMP monitors, as `-qmp unix:…` and `-chardev socket,…` with `-mon …,mode=control` give them; one of our name first. */
export function monitorPaths(args: readonly string[]): string[] {
  const chardevs = new Map<string, string>();
  const found: string[] = [];
  args.forEach((word, at) => {
    const value = args[at + 1] ?? '';
    const option = word.replace(/^--/, '-');
    if (option === '-qmp' || option === '-qmp-pretty') found.push(...unixPath(value));
    if (option === '-chardev' && value.startsWith('socket,')) {
      const { id, path } = keys(value);
      if (id !== undefined && path !== undefined) chardevs.set(id, path);
    }
  });
  args.forEach((word, at) => {
    if (word.replace(/^--/, '-') !== '-mon') return;
    const { chardev, mode } = keys(`chardev=${(args[at + 1] ?? '').replace(/^chardev=/, '')}`);
    const path = chardev === undefined ? undefined : chardevs.get(chardev);
    if (mode === 'control' && path !== undefined) found.push(path);
  });
  return [...found.filter(isOwnMonitor), ...found.filter((path) => !isOwnMonitor(path))];
}

export function isOwnMonitor(path: string): boolean {
  return path.endsWith(`/${ownMonitorName}`) || path.endsWith(`.${ownMonitorName}`);
}

/** `-qmp` for a monitor at `path`. */
export function monitorArguments(path: string): string[] {
  return ['-qmp', `unix:${path.replaceAll(',', ',,')},server=on,wait=off`];
}

function unixPath(value: string): string[] {
  const path = /^unix:((?:[^,]|,,)+)/.exec(value)?.[1];
  return path === undefined ? [] : [path.replaceAll(',,', ',')];
}

/** Of `word,key=value,…`, where a comma in a value is doubled. */
function keys(value: string): Readonly<Record<string, string | undefined>> {
  const parts = value.match(/(?:[^,]|,,)+/g) ?? [];
  return Object.fromEntries(parts.flatMap((part) => {
    const at = part.indexOf('=');
    return at < 0 ? [] : [[part.slice(0, at), part.slice(at + 1).replaceAll(',,', ',')]];
  }));
}
