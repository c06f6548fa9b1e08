/** Alerts as one plain-text e-mail for all that came together, through one SMTP server. Names and passwords are read from private files for each, and nothing that is sent names a file or a secret. */
import { readFile } from 'node:fs/promises';
import { createTransport } from 'nodemailer';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatInstant, printable } from '../render/units.ts';
import type { AlertChannel } from './alert-channel.ts';
import type { Bulletin, EmailOptions, Notice } from './alert-options.ts';
import { readPrivateFile } from './private-file.ts';

/** For one step of the conversation, ms. */
const stepMsMax = 15_000;
/** In the body of one; the rest is counted. */
const shownMax = 50;

export function emailChannel(options: EmailOptions): AlertChannel {
  const { host, port, from, to } = options;
  return {
    name: `email (${host})`,
    takes: () => true,
    async send(bulletin, signal) {
      const mailer = createTransport(await transportOf(options));
      const stop = (): void => mailer.close();
      signal.addEventListener('abort', stop, { once: true });
      try {
        const { subject, text } = emailOf(bulletin);
        const sent = await mailer.sendMail({
          from, to: [...to], subject, text, messageId: `<${bulletin.id}@${bulletin.from.name}.afterimage>`, date: new Date(bulletin.sentAtMs),
          headers: { 'auto-submitted': 'auto-generated', 'x-afterimage-delivery': bulletin.id }, disableFileAccess: true, disableUrlAccess: true,
        });
        if (sent.rejected.length > 0) throw new Fault('ALERT_UNDELIVERED', `${host} refused ${sent.rejected.join(', ')}`, { host, port });
        return sent.response;
      } catch (error) {
        if (isFault(error) || !(error instanceof Error && 'code' in error)) throw error;
        throw new Fault('ALERT_UNDELIVERED', `${host}:${port}: ${error.message}`, { host, port, error: error.code });
      } finally {
        signal.removeEventListener('abort', stop);
        mailer.close();
      }
    },
  };
}

async function transportOf({ host, port, tls, userPath, passwordPath, caPath }: EmailOptions) {
  const auth = userPath === null || passwordPath === null ? {} : { auth: { user: await readPrivateFile(userPath), pass: await readPrivateFile(passwordPath) } };
  const ca = caPath === null ? {} : { ca: await readCertificates(caPath) };
  return {
    host, port, secure: tls === 'tls', requireTLS: tls === 'starttls', ignoreTLS: tls === 'none', tls: { minVersion: 'TLSv1.2' as const, ...ca },
    connectionTimeout: stepMsMax, greetingTimeout: stepMsMax, socketTimeout: stepMsMax, dnsTimeout: stepMsMax, ...auth,
  };
}

async function readCertificates(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Fault('CONFIG_INVALID', `${path} cannot be read: ${(error as Error).message}`, { path }, error);
  }
}

/** Pure. */
export function emailOf({ from, notices }: Bulletin): { readonly subject: string; readonly text: string } {
  const worst = notices.some(({ event, severity }) => event !== 'recovered' && event !== 'test' && severity === 'error') ? 'ERROR' : notices.every(({ event }) => event === 'recovered') ? 'recovered' : notices.every(({ event }) => event === 'test') ? 'test' : 'warning';
  const about = notices.length === 1 ? `${notices[0]!.code}${notices[0]!.group === null ? '' : ` ${notices[0]!.group}`}` : `${notices.length} alerts`;
  const left = notices.length - shownMax;
  return {
    subject: printable(`[afterimage ${from.name}] ${worst}: ${about}`),
    text: `${notices.slice(0, shownMax).map(paragraph).join('\n\n')}\n${left > 0 ? `\n… and ${left} more: see afterimage status.\n` : ''}\n-- \nafterimage ${from.version}, ${from.role} ${from.name}\n`,
  };
}

function paragraph({ event, code, group, severity, message, advice, sinceMs, atMs }: Notice): string {
  const head = `${event === 'recovered' ? 'Recovered' : event === 'test' ? 'Test' : event === 'repeated' ? `Still ${severity}` : severity === 'error' ? 'Error' : 'Warning'}: ${code}${group === null ? '' : ` (${group})`}`;
  return [head, `  ${printable(message)}`, `  since ${formatInstant(sinceMs)}${event === 'recovered' ? `, over at ${formatInstant(atMs)}` : ''}`, ...(advice === '' || event === 'recovered' ? [] : [`  What you can do: ${advice}`])].join('\n');
}
