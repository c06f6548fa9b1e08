/** All decoders of what somebody else wrote, of either role. */
import { captureDecoders } from './capture-decoders.ts';
import type { Decoder } from './decoder.ts';
import { hypervisorDecoders } from './hypervisor-decoders.ts';
import { nbdDecoders } from './nbd-decoders.ts';
import { operatorDecoders } from './operator-decoders.ts';
import { storeDecoders } from './store-decoders.ts';
import { wireDecoders } from './wire-decoders.ts';

/** Those that need a server or a folder make it when they are first given something. */
export function decoders(): readonly Decoder[] {
  return [...wireDecoders, ...storeDecoders, ...hypervisorDecoders(), ...nbdDecoders(), ...captureDecoders, ...operatorDecoders()];
}
