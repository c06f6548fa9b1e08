/** Waits for the target's acknowledgement of one point, or of one part of an unsealed delta: durable there, or the session's fault. */
import { Fault } from '../../journal/fault.ts';
import type { TargetSession } from './session.ts';

export interface AwaitedAck { readonly term: number; readonly point: number; readonly part?: number }

export interface AckWait { readonly acknowledged: Promise<void>; stop(): void }

/** Listens from the call on; call it before the seal or part is sent. `stop` ends the listening. */
export function awaitAck(session: TargetSession, groupId: string, awaited: AwaitedAck, signal?: AbortSignal): AckWait {
  let end: () => void = () => undefined;
  const acknowledged = new Promise<void>((resolve, reject) => {
    const ignore = session.listen(groupId, {
      onAck: (ack) => { if (ack.term === awaited.term && ack.point === awaited.point && ack.part === awaited.part) resolve(); },
      onHeld: (code, message) => reject(new Fault('STORE_FULL', `the target holds us off (${code}): ${message}`)),
      onRefused: reject,
      onClosed: reject,
    });
    const onAbort = (): void => reject(signal!.reason as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    end = () => {
      ignore();
      signal?.removeEventListener('abort', onAbort);
    };
  });
  // Whoever fails earlier, in sending, never comes to await this.
  acknowledged.catch(() => undefined);
  return { acknowledged, stop: end };
}
