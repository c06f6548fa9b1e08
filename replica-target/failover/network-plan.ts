/** Where the NICs of a group's guests lead on this host: decided from the config and what was asked for. Their MAC addresses and their order are the recorded ones. */
import { z } from 'zod';

/** `none`: no cable. `user`: QEMU's own address translation. `isolated`: the same, with no way out of the guest. `bridge:NAME`: that bridge, through qemu-bridge-helper. */
export const networkName = z.custom<'none' | 'user' | 'isolated' | `bridge:${string}`>((value) => typeof value === 'string' && /^(none|user|isolated|bridge:[A-Za-z0-9_.-]{1,15})$/.test(value));
export type NetworkName = z.infer<typeof networkName>;

/** By MAC address, in lower case; `default`: of all others. */
export type NetworkMap = Readonly<Record<string, NetworkName>>;

/** By group: in a failover, and in a test of one. */
export type GroupNetworks = Readonly<Record<string, { readonly failover?: NetworkMap | undefined; readonly test?: NetworkMap | undefined }>>;

export interface ChosenNetwork {
  readonly network: NetworkName;
  /** By MAC, of NICs that lead elsewhere. */
  readonly networks: NetworkMap;
}

/** What was asked for holds for every NIC; else each has its own place, or the group's, or that of all groups. */
export function planNetwork({ group, kind, asked, fallback, configured }: {
  readonly group: string; readonly kind: 'failover' | 'test'; readonly asked: NetworkName | undefined; readonly fallback: NetworkName; readonly configured: GroupNetworks | undefined;
}): ChosenNetwork {
  if (asked !== undefined) return { network: asked, networks: {} };
  const { default: own, ...networks } = configured?.[group]?.[kind] ?? {};
  return { network: own ?? fallback, networks };
}

/** The bridge that a name leads to; null: to none. */
export function bridgeOf(network: string): string | null {
  return /^bridge:(.*)$/.exec(network)?.[1] ?? null;
}
