/**
 * Alerts as an HTTP POST of one JSON document (alert-options.ts `Bulletin`; README, "Alerts"). With a secret it carries
 * `x-afterimage-signature: t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`. Redirects are not followed: they would carry it elsewhere.
 */
import { createHmac } from 'node:crypto';
import { Fault } from '../../journal/fault.ts';
import type { AlertChannel } from './alert-channel.ts';
import type { WebhookOptions } from './alert-options.ts';
import { readPrivateFile } from './private-file.ts';

/** For the whole of one delivery, ms. */
const sendMsMax = 15_000;

export function webhookChannel({ url, secretPath, codes }: WebhookOptions, index: number): AlertChannel {
  const { host } = new URL(url);
  const name = `webhook ${index + 1} (${host})`;
  return {
    name,
    takes: ({ code, event }) => event === 'test' || codes === null || codes.includes(code),
    async send(bulletin, signal) {
      const body = JSON.stringify(bulletin);
      const seconds = Math.floor(bulletin.sentAtMs / 1000);
      const signature = secretPath === null ? {} : { 'x-afterimage-signature': `t=${seconds},v1=${sign(await readPrivateFile(secretPath), seconds, body)}` };
      const response = await request(url, host, {
        method: 'POST', body, redirect: 'manual', signal: AbortSignal.any([signal, AbortSignal.timeout(sendMsMax)]),
        headers: { 'content-type': 'application/json; charset=utf-8', 'user-agent': `afterimage/${bulletin.from.version}`, 'x-afterimage-delivery': bulletin.id, ...signature },
      });
      if (!response.ok) throw new Fault('ALERT_UNDELIVERED', `${host} answered ${response.status}${response.status >= 300 && response.status < 400 ? ', a redirect, which is not followed' : ''}`, { host, status: response.status });
      return `HTTP ${response.status}`;
    },
  };
}

/** Hex. For whoever checks: over the seconds of the header, a dot and the body as it came. */
export function sign(secret: string, seconds: number, body: string): string {
  return createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex');
}

/** Its body is read by nobody. Fault ALERT_UNDELIVERED. */
export async function request(url: string, host: string, init: RequestInit): Promise<{ readonly ok: boolean; readonly status: number }> {
  try {
    const { ok, status, body } = await fetch(url, init);
    await body?.cancel();
    return { ok, status };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    // The cause names addresses and system errors, and never the path of the URL.
    const why = error.name === 'TimeoutError' ? 'no answer in time' : error.cause instanceof Error ? error.cause.message : error.message;
    throw new Fault('ALERT_UNDELIVERED', `${host}: ${why}`, { host });
  }
}
