/** The power of several guests as if they were one: what is asked is asked of all, and done when all have done it. */
import type { GuestPower } from '../capture/capture.ts';

/** All have ended when it settles, whatever came of them: nobody goes on behind a failure. Rejects with the first, in order. */
export async function allOf<T>(acts: readonly Promise<T>[]): Promise<T[]> {
  return (await Promise.allSettled(acts)).map((act) => {
    if (act.status === 'rejected') throw act.reason;
    return act.value;
  });
}

export function jointPower(guests: readonly { readonly power: GuestPower; readonly first: number }[]): GuestPower {
  const each = <T>(act: (power: GuestPower) => Promise<T>): Promise<T[]> => allOf(guests.map(({ power }) => act(power)));
  return {
    keepThroughOff: async () => (await each((power) => power.keepThroughOff())).find((why) => why !== null) ?? null,
    shutDown: async (options) => (await each((power) => power.shutDown(options))).every(Boolean),
    standStill: async () => { await each((power) => power.standStill()); },
    startAgain: async (waitMs) => { await each((power) => power.startAgain(waitMs)); },
    images: async () => (await each((power) => power.images())).flatMap((images, at) => images.map((image) => ({ ...image, disk: guests[at]!.first + image.disk }))),
    end: async () => { await each((power) => power.end()); },
    // The first that stands still says why.
    runState: async () => { const states = await each((power) => power.runState()); return states.find(({ running }) => !running) ?? states[0]!; },
    pause: async () => { await each((power) => power.pause()); },
    goOn: async () => { await each((power) => power.goOn()); },
  };
}
