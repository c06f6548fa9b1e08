/** A guest's power, with word of it when the guest runs again: whoever rested while it stood still goes on. */
import type { GuestPower } from '../capture/capture.ts';

/** `onRunning` is called before the guest can write anything. */
export function wakingPower(power: GuestPower, onRunning: () => void): GuestPower {
  return {
    keepThroughOff: () => power.keepThroughOff(), shutDown: (options) => power.shutDown(options), standStill: () => power.standStill(), images: () => power.images(), end: () => power.end(), runState: () => power.runState(), pause: () => power.pause(),
    startAgain: (waitMs) => { onRunning(); return power.startAgain(waitMs); },
    goOn: () => { onRunning(); return power.goOn(); },
  };
}
