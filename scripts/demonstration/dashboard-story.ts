/**
 * The dashboard to look at: a real guest is protected, both daemons serve their pages, and all goes on until somebody interrupts it. With a folder for
 * screenshots a browser without a window walks through the pages first. Opens nothing by itself.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import type { Page } from 'playwright-core';
import { tint } from '../../console/render/look.ts';
import { openBrowser, openPage, signedIn, viewports, type Viewport } from '../browser/open-browser.ts';
import { freePort } from '../lab/free-port.ts';
import { makeGuestDisk } from './guest-disk.ts';
import type { Screen } from './screen.ts';
import type { Stage } from './stage.ts';
import { bootGuest, name, protect, startDaemons, watch, type StoryOptions } from './story.ts';

export interface DashboardFigures { readonly target: string; readonly source: string; readonly shots: readonly string[] }

/** Enough for charts to show something. */
const watchMsMax = 20_000;
const pageMsMax = 60_000;
/** Guests of the lab end by themselves in the end, ms. */
const guestMsMax = 12 * 3_600_000;

export async function playDashboard(stage: Stage, screen: Screen, options: StoryOptions, shotsFolder: string | null, lastMs: number | null): Promise<DashboardFigures> {
  screen.title('A running guest is protected, and its points can be looked at in a browser');
  const ports = { target: await freePort(), source: await freePort() };
  for (const role of ['target', 'source'] as const) await stage.addConfig(role, `api: { listen: { host: 127.0.0.1, port: ${ports[role]} } }\n`);
  const disk = await makeGuestDisk(stage.folder);
  const guest = await bootGuest(stage, screen, options, disk, { extraArgs: ['-device', 'VGA'], timeLimitMs: guestMsMax });
  await startDaemons(stage, screen);
  await protect(stage, screen, guest, options);
  await stage.source.mark({ name, label: 'before the demo' });
  await watch(stage, screen, guest, Math.min(options.watchMs, watchMsMax));

  const target = signedIn(`https://127.0.0.1:${ports.target}`, (await stage.target.createToken('demo', 'administer', 86_400_000)).token);
  const source = signedIn(`https://127.0.0.1:${ports.source}`, (await stage.source.createToken('demo', 'administer', 86_400_000)).token);
  screen.done('dashboard', tint(screen.look, 'strong', target));
  screen.done('', 'of the target; the source has a smaller one:');
  screen.done('', source);
  screen.done('', 'The certificates are the daemons’ own, so a browser asks before it shows them.');
  const shots = shotsFolder === null ? [] : await takeShots(screen, shotsFolder, { target, source });
  screen.done('', lastMs === null ? 'It goes on until it is interrupted (Ctrl-C).' : `It goes on for ${lastMs / 1000} s.`);
  // Whatever becomes of the guest meanwhile (it may be failed over): who looks decides when it is over.
  await delay(lastMs ?? guestMsMax);
  return { target: `https://127.0.0.1:${ports.target}`, source: `https://127.0.0.1:${ports.source}`, shots };
}

async function takeShots(screen: Screen, folder: string, address: { readonly target: string; readonly source: string }): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const shots: string[] = [];
  const browser = await openBrowser();
  try {
    for (const [viewport, colours] of (Object.keys(viewports) as Viewport[]).flatMap((one) => [[one, 'light'], [one, 'dark']] as const)) {
      const { page, context } = await openPage(browser, viewport, colours);
      page.setDefaultTimeout(pageMsMax);
      const shoot = async (what: string): Promise<void> => {
        const path = join(folder, `${what}-${viewport}-${colours}.png`);
        await page.screenshot({ path, fullPage: true });
        shots.push(path);
        screen.live('shots', path);
      };
      await page.goto(address.target);
      await page.locator(`a[href="#/group/${name}"]`).waitFor();
      await shoot('overview');
      await page.locator(`a[href="#/group/${name}"]`).click();
      await page.getByRole('slider', { name: 'Point' }).waitFor();
      await page.locator('.uplot canvas').first().waitFor();
      await shoot('group');
      await showPlan(page);
      await shoot('failover-plan');
      if (viewport === 'desktop' && colours === 'light') await showTest(page, shoot);
      await page.goto(address.source);
      await page.getByText('would be lost').first().waitFor();
      await shoot('source');
      await context.close();
    }
  } finally {
    await browser.close();
  }
  screen.done('shots', `${shots.length} screenshots in ${folder}`);
  return shots;
}

async function showPlan(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Fail over', exact: true }).click();
  await page.getByRole('region', { name: 'Plan' }).waitFor();
}

/** A test of the newest point, its screen, and its end. */
async function showTest(page: Page, shoot: (what: string) => Promise<void>): Promise<void> {
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Test failover' }).click();
  await page.getByRole('button', { name: 'Start the test' }).click();
  await page.getByText('Done, in').waitFor();
  await page.getByRole('button', { name: 'Close' }).click();
  await page.getByText('AF COUNTER').first().waitFor();
  await shoot('test');
  await page.getByRole('button', { name: 'End the test' }).click();
  await page.getByRole('button', { name: 'End it', exact: true }).click();
  await page.getByText('Done, in').waitFor();
  await page.getByRole('button', { name: 'Close' }).click();
}
