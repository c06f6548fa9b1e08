/**
 * How figures are written for people: the one place for sizes, rates, spans, instants and shares. Pure. What reads such text
 * back is config/quantity.ts. Absent figures are a dash, never a zero.
 */

export const absent = '–';

const sizeUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Three digits at most: `512 B`, `1.5 KiB`, `20 GiB`. */
export function formatBytes(bytes: number | null): string {
  if (bytes === null || !Number.isFinite(bytes)) return absent;
  let value = bytes;
  let unit = 0;
  // At 999.5 the next unit begins, so that no figure is ever rounded to four digits.
  while (Math.abs(value) >= 999.5 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 9.95 || value === 0 ? Math.round(value) : value.toFixed(1)} ${sizeUnits[unit]}`;
}

export function formatRate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null || !Number.isFinite(bytesPerSecond) ? absent : `${formatBytes(bytesPerSecond)}/s`;
}

/** `41 ms`, `3.1 s`, `45 s`, `10 min 5 s`, `2 h 10 min`, `3 d 4 h`. */
export function formatSpan(ms: number | null): string {
  if (ms === null || !Number.isFinite(ms)) return absent;
  if (ms < 0) return `−${formatSpan(-ms)}`;
  if (ms < 99.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(seconds, 60, 'min', 's');
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return pair(minutes, 60, 'h', 'min');
  return pair(Math.round(minutes / 60), 24, 'd', 'h');
}

function pair(value: number, size: number, large: string, small: string): string {
  const rest = value % size;
  return rest === 0 ? `${Math.floor(value / size)} ${large}` : `${Math.floor(value / size)} ${large} ${rest} ${small}`;
}

/** Local time of this host: `2030-01-02 03:04:05`. */
export function formatInstant(ms: number | null): string {
  if (ms === null || !Number.isFinite(ms)) return absent;
  const at = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function formatShare(share: number): string {
  return `${Math.floor(Math.min(1, Math.max(0, share)) * 100)} %`;
}

/** Text from elsewhere (labels, errors, names of devices) without the control characters that could steer a terminal. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g, ' ');
}
