/**
 * A rehearsal's report as a page of its own, for whoever has to show that recovery was tested: what was booted, from which point, how long until it was ready, what was seen. No
 * script, nothing from elsewhere. Whatever comes from guests or configs is escaped.
 */
import { formatPoint } from '../../journal/point.ts';
import type { RehearsalReport } from './rehearsal-report.ts';

export function rehearsalPage(report: RehearsalReport, shown: readonly { readonly guest: string; readonly screen: Buffer | null; readonly serial: string }[]): string {
  const { group, point, isPassed, why, startedAtMs, endedAtMs, by, version, rtoMs, readyMs, accel, network } = report;
  const facts: readonly (readonly [string, string])[] = [
    ['Result', isPassed ? 'passed' : `failed: ${why}`],
    ['What was booted', `${group}: ${report.guests.map(({ name }) => name).join(', ') || 'nothing'}`],
    ['From which point', `${formatPoint(point)} (${point.kind}), cut ${instant(point.cutAtMs)}`],
    ['Age of the point', span(startedAtMs - point.cutAtMs)],
    ['Begun', `${instant(startedAtMs)}, ${by === 'schedule' ? 'by schedule' : 'as a person asked'}`],
    ['Ended', instant(endedAtMs)],
    ['Until processors ran', rtoMs === null ? 'not reached' : span(rtoMs)],
    ['Until all were ready', readyMs === null ? 'not reached' : span(readyMs)],
    ['How it ran', accel === null ? 'it did not' : `${accel}, network: ${network ?? 'none'}; on overlays, beside a protection that went on; all of it was removed`],
    ['Software', `Afterimage ${version}`],
  ];
  const guests = report.guests.map((guest) => {
    const { screen = null, serial = '' } = shown.find((one) => one.guest === guest.name) ?? {};
    return `<section><h2>${escaped(guest.name)}</h2>
<p>${guest.state === 'ready' ? `Ready after ${span(guest.readyMs ?? 0)}.` : guest.state === 'waiting' ? 'It was not started.' : 'It was not ready in time.'}</p>
${guest.checks.length === 0 ? '<p>No check of its readiness is configured: its processors ran, and no more is known.</p>' : `<table><thead><tr><th>Check</th><th>Outcome</th><th>After</th></tr></thead><tbody>${guest.checks.map(({ what, isReady, tookMs, why: reason }) => `<tr><td>${escaped(what)}</td><td>${isReady ? 'met' : `not met: ${escaped(reason)}`}</td><td>${span(tookMs)}</td></tr>`).join('')}</tbody></table>`}
${screen === null ? `<p>No screenshot: ${escaped(guest.screenWhy)}.</p>` : `<figure><img alt="The screen of ${escaped(guest.name)}" src="data:image/png;base64,${screen.toString('base64')}"><figcaption>Its screen at the end.</figcaption></figure>`}
<details><summary>The end of what it said on its serial port</summary><pre>${escaped(serial)}</pre></details></section>`;
  }).join('\n');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Rehearsal of ${escaped(group)}, ${instant(startedAtMs)}</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8886}th{width:14rem}thead th{width:auto}pre{overflow:auto;max-height:30rem;background:#8882;padding:1rem}img{max-width:100%}.passed{color:#17803d}.failed{color:#c62828}</style></head>
<body><h1>Rehearsal of ${escaped(group)}: <span class="${isPassed ? 'passed' : 'failed'}">${isPassed ? 'passed' : 'failed'}</span></h1>
<table><tbody>${facts.map(([name, value]) => `<tr><th scope="row">${escaped(name)}</th><td>${escaped(value)}</td></tr>`).join('')}</tbody></table>
${guests}
</body></html>
`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`).replace(/[^\P{Cc}\n\t]/gu, '\u{fffd}');
}

function instant(ms: number): string {
  return `${new Date(ms).toISOString().replace('T', ' ').slice(0, 19)} UTC`;
}

function span(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : ms < 120_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}
