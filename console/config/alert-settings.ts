/** What either role's config says of metrics and alerts, as the options of console/metrics/ and console/alerts/. */
import { defaultThresholds, settleMsDefault, type AlertOptions, type EmailOptions } from '../alerts/alert-options.ts';
import { isLoopback } from '../loopback.ts';
import type { MetricsOptions } from '../metrics/metrics-server.ts';
import type { SourceFile, TargetFile } from './schema.ts';
import type { ConfigProblem, YamlSource } from './yaml-source.ts';

type AlertFile = NonNullable<(SourceFile | TargetFile)['alerts']>;

const everyDay = [0, 1, 2, 3, 4, 5, 6];
const heartbeatMsDefault = 60_000;
/** Submission (RFC 6409), over TLS (RFC 8314), and as servers speak among themselves. */
const smtpPorts: Readonly<Record<EmailOptions['tls'], number>> = { starttls: 587, tls: 465, none: 25 };

export function metricsOptions({ metrics }: SourceFile | TargetFile): MetricsOptions | null {
  return metrics === undefined ? null : { host: metrics.listen.host ?? '127.0.0.1', port: metrics.listen.port };
}

/** Null: nobody is told. */
export function alertOptions(yaml: YamlSource, { alerts }: SourceFile | TargetFile, problems: ConfigProblem[]): AlertOptions | null {
  if (alerts === undefined) return null;
  const { webhook, email, command, quietHours, repeatEvery, settle, heartbeat, rules } = alerts;
  const { rpoWarn, rpoError, absentMs, certificateMs, volumeFullMs } = defaultThresholds;
  const [warn, error] = [rules?.rpo?.warn ?? rpoWarn, rules?.rpo?.error ?? Math.max(rpoError, rules?.rpo?.warn ?? 0)];
  if (error < warn) problems.push(yaml.at(['alerts', 'rules', 'rpo', 'error'], `expected at least \`warn\` (${warn})`));
  return {
    webhooks: (webhook ?? []).map(({ url, secretFile, events }) => ({ url, secretPath: secretFile ?? null, codes: events ?? null })),
    email: email === undefined ? null : emailOptions(yaml, email, problems),
    command: command ?? null,
    quietHours: quietHours === undefined ? null : { fromMinute: quietHours.from, toMinute: quietHours.to, days: quietHours.days ?? everyDay, errors: quietHours.errors ?? 'pass' },
    repeatEveryMs: repeatEvery ?? null,
    settleMs: settle ?? settleMsDefault,
    heartbeat: heartbeat === undefined ? null : { url: heartbeat.url, everyMs: heartbeat.every ?? heartbeatMsDefault },
    thresholds: {
      rpoWarn: warn, rpoError: error, absentMs: rules?.absent ?? absentMs, provenMs: rules?.proven ?? null, certificateMs: rules?.certificate ?? certificateMs, volumeFullMs: rules?.volumeFull ?? volumeFullMs,
    },
  };
}

function emailOptions(yaml: YamlSource, { smtp, tls = 'starttls', from, to, userFile, passwordFile, ca }: NonNullable<AlertFile['email']>, problems: ConfigProblem[]): EmailOptions {
  if ((userFile === undefined) !== (passwordFile === undefined)) problems.push(yaml.at(['alerts', 'email'], 'expected `userFile` and `passwordFile` together, or neither'));
  if (tls === 'none' && passwordFile !== undefined && !isLoopback(smtp.host)) problems.push(yaml.at(['alerts', 'email', 'tls'], 'expected `starttls` or `tls`: a password would travel in the clear'));
  return { host: smtp.host, port: smtp.port ?? smtpPorts[tls], tls, from, to, userPath: userFile ?? null, passwordPath: passwordFile ?? null, caPath: ca ?? null };
}
