/**
 * Reads and writes the config file of a guest of Proxmox VE (`/etc/pve/qemu-server/VMID.conf`; pve-docs "qm.conf"): lines `key: value`, a description of `#` lines first, then sections
 * `[snapshot]` that are not the guest as it runs. Pure; what it does not know stays as it is.
 */

export interface PveConfig {
  /** Lines before the first section, as they are: descriptions, empty ones and pairs. */
  readonly lines: readonly PveLine[];
}

export type PveLine = { readonly text: string } | { readonly key: string; readonly value: string };

/** Of the guest as it is now: what snapshots and pending changes say is left out. */
export function parsePveConfig(text: string): PveConfig {
  const lines: PveLine[] = [];
  for (const line of text.replace(/\n$/, '').split('\n')) {
    if (/^\[.*\]\s*$/.test(line)) break;
    const [, key, value] = /^([a-z][a-z0-9_-]*):\s*(.*?)\s*$/i.exec(line) ?? [];
    lines.push(key === undefined ? { text: line } : { key, value: value! });
  }
  return { lines };
}

export function formatPveConfig({ lines }: PveConfig): string {
  return lines.map((line) => `${'key' in line ? `${line.key}: ${line.value}` : line.text}\n`).join('');
}

export function pveValue({ lines }: PveConfig, key: string): string | undefined {
  return pvePairs({ lines }).find((line) => line.key === key)?.value;
}

export function pvePairs({ lines }: PveConfig): { readonly key: string; readonly value: string }[] {
  return lines.filter((line): line is { readonly key: string; readonly value: string } => 'key' in line);
}

/** A disk's or NIC's value: a first word that may have no key, then `key=value`, by commas. */
export function parsePveOptions(value: string): { readonly first: string; readonly options: ReadonlyMap<string, string> } {
  const [first = '', ...rest] = value.split(',');
  return { first, options: new Map(rest.map((part) => [part.split('=')[0]!, part.slice(part.indexOf('=') + 1)])) };
}

/** The words of `args`, which Proxmox VE splits as a shell would (`PVE::Tools::split_args`). */
export function splitPveArgs(value: string): string[] {
  return [...value.matchAll(/(?:[^\s"']|"(?:[^"\\]|\\.)*"|'[^']*')+/g)].map(([word]) => word.replace(/"((?:[^"\\]|\\.)*)"|'([^']*)'/g, (_, double?: string, single?: string) => (double === undefined ? single ?? '' : double.replace(/\\(.)/g, '$1'))));
}

/** As {@link splitPveArgs} takes them apart again. */
export function joinPveArgs(args: readonly string[]): string {
  return args.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `"${word.replace(/["\\]/g, '\\$&')}"`)).join(' ');
}

/** Names of the sections behind the guest as it is: snapshots, `PENDING`, `special:…`. */
export function pveSections(text: string): string[] {
  return text.split('\n').flatMap((line) => /^\[(.*)\]\s*$/.exec(line)?.[1] ?? []);
}
