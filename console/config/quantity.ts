/**
 * Reads what people write for sizes (`4GiB`), rates (`100MiB/s`), durations (`5s`) and addresses (`host:port`), in config
 * files and on the command line. Pure; undefined for anything that is not wholly understood. A unit is always asked for:
 * a bare number is a guess between bytes and gibibytes. What it writes for people is in render/units.ts.
 */

const sizeUnits: Readonly<Record<string, number>> = {
  B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12,
};
const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** Whole bytes, exactly representable. */
export function readSizeBytes(text: string): number | undefined {
  return scaled(text, sizeUnits);
}

/** Bytes per second; the `/s` may be left out. `0` means no limit. */
export function readRate(text: string): number | undefined {
  const trimmed = text.trim();
  return trimmed === '0' ? 0 : readSizeBytes(trimmed.replace(/\s*\/s$/, ''));
}

/** Whole milliseconds. */
export function readDurationMs(text: string): number | undefined {
  return scaled(text, durationUnits);
}

/** So many bytes in an hour or a day; above zero. */
export function readVolume(text: string): { readonly bytes: number; readonly perMs: number } | undefined {
  const found = /^(.+?)\s*\/\s*(h|hour|d|day)$/.exec(text.trim());
  const bytes = found === null ? undefined : readSizeBytes(found[1]!);
  return bytes === undefined || bytes === 0 ? undefined : { bytes, perMs: found![2]!.startsWith('h') ? 3_600_000 : 86_400_000 };
}

export interface HostPort { readonly host: string; readonly port: number | null }

/** `host`, `host:port`, `[v6]`, `[v6]:port`. A bare IPv6 address is taken for a host. Port 1 to 65535. */
export function readHostPort(text: string): HostPort | undefined {
  const bracketed = /^\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?$/.exec(text);
  const plain = bracketed ?? /^([^\s:/[\]]+)(?::(\d{1,5}))?$/.exec(text);
  if (plain === null) return /^[0-9A-Fa-f:.]+$/.test(text) && text.split(':').length > 2 ? { host: text, port: null } : undefined;
  const host = plain[1]!;
  if (plain[2] === undefined) return { host, port: null };
  const port = Number(plain[2]);
  return port >= 1 && port <= 65_535 ? { host, port } : undefined;
}

function scaled(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,15})(?:\.(\d{1,6}))?\s*([A-Za-z]+)$/.exec(text.trim());
  const factor = Object.hasOwn(units, match?.[3] ?? '') ? units[match![3]!] : undefined;
  if (match === null || factor === undefined) return undefined;
  const value = Math.round(Number(`${match[1]}.${match[2] ?? '0'}`) * factor);
  return Number.isSafeInteger(value) ? value : undefined;
}
