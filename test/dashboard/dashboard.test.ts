/**
 * The dashboard in a real browser, against two real hosts and a real guest: every act that it offers is done through it, and what is shown is held against what the daemons say. With
 * AFTERIMAGE_SHOTS, a folder, screenshots are kept.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import t from 'tap';
import { formatPoint } from '../../journal/point.ts';
import { openBrowser, openPage, signedIn, type Viewport } from '../../scripts/browser/open-browser.ts';
import { freePort } from '../../scripts/lab/free-port.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';

const axePath = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const waitMs = 60_000;

/** Axe's findings that keep somebody from using the page. */
async function barriers(page: Page): Promise<string[]> {
  await page.evaluate((await import('node:fs')).readFileSync(axePath, 'utf8'));
  const found = await page.evaluate(async () => (globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; impact: string; nodes: { target: unknown[] }[] }[] }> } }).axe.run());
  return found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ target }) => target.join(' ')).join(', ')}`);
}

void t.test('every act of the dashboard, on a real guest', { timeout: 280_000 }, async (t) => {
  const browser = await openBrowser();
  t.teardown(() => browser.close());
  const ports = { alpha: await freePort(), bravo: await freePort() };
  const { alpha, bravo } = await startSites(t, null, { targetConfigOf: (name) => `api: { listen: { host: 127.0.0.1, port: ${ports[name]} } }\ngroups: { web1: { guests: { web1: { ready: { serial: "AF COUNTER [0-9]", within: 2m } } } } }\n` });
  const address = (site: keyof typeof ports): string => `https://127.0.0.1:${ports[site]}`;
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 64 * 1024 ** 2);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 64, timeLimitMs: 270_000, disks: [{ path, format: 'raw' }], extraArgs: ['-device', 'VGA'] });
  await guest.waitForLine(/^AF COUNTER 5 /, waitMs);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  for (let at = 0; at < 3; at += 1) await alpha.newPoint('web1');

  const { page } = await openPage(browser, 'desktop');
  page.setDefaultTimeout(waitMs);
  const refused: string[] = [];
  page.on('console', (message) => { if (message.type() === 'error') refused.push(message.text()); });
  page.on('pageerror', (error) => refused.push(error.message));
  const shots = process.env['AFTERIMAGE_SHOTS'];
  const shoot = async (of: Page, what: string): Promise<void> => { if (shots !== undefined) await of.screenshot({ path: join(shots, `${what}.png`), fullPage: true }); };
  const button = (name: string, of: Page = page) => of.getByRole('button', { name, exact: true });
  const done = async (): Promise<string> => {
    const dialog = page.getByRole('dialog');
    await dialog.getByText('Done, in').waitFor();
    const text = await dialog.innerText();
    await button('Close').click();
    return text;
  };
  const typed = (): Promise<void> => page.getByLabel('to confirm').fill('web1');

  // Nothing is shown to who has no token, and the token stays out of the address.
  await page.goto(address('bravo'));
  t.ok(await page.getByLabel('Operator’s token').isVisible());
  const { token } = await bravo.target.client.createToken('browser', 'administer', null);
  await page.getByLabel('Operator’s token').fill('no such token');
  await button('Sign in').click();
  await page.getByLabel('Operator’s token').waitFor();
  refused.length = 0;
  await page.goto(signedIn(address('bravo'), token));
  await page.reload();
  const card = page.locator('a[href="#/group/web1"]');
  await card.waitFor();
  t.notMatch(page.url(), token);
  t.same(await barriers(page), [], 'overview');
  await shoot(page, 'overview');

  await card.click();
  const slider = page.getByRole('slider', { name: 'Point' });
  await slider.waitFor();
  t.same(await barriers(page), [], 'group');
  // By keyboard alone: an older point.
  await slider.focus();
  await page.keyboard.press('Home');
  const [oldest] = (await bravo.target.client.timeline('web1')).points;
  await page.getByRole('heading', { name: `Point ${formatPoint(oldest!)}` }).waitFor();
  t.match(await slider.getAttribute('aria-valuetext'), /^point 1\.1, .* ago/);

  await button('Hold').click();
  await page.getByLabel('What for').fill('looked at in a browser');
  await page.getByRole('dialog').getByRole('button', { name: 'Hold', exact: true }).click();
  await done();
  t.match((await bravo.target.client.timeline('web1')).holds, [{ reason: 'looked at in a browser' }]);

  await button('Check stored data').click();
  await button('Check').click();
  t.match(await done(), /All that is stored is good/);

  // A test of the older point: what it shows is shown, also on a phone, and by a reader who prefers dark.
  await button('Test this point').click();
  await button('Start the test').click();
  t.match(await done(), /Point 1\.1 runs/);
  await page.getByText(/AF (COUNTER|READY)/).first().waitFor();
  t.ok(await page.getByRole('img', { name: 'The screen of web1' }).isVisible());
  for (const [viewport, colours] of [['phone', 'dark'], ['phone', 'light']] as const satisfies readonly (readonly [Viewport, string])[]) {
    const { page: small, context } = await openPage(browser, viewport, colours);
    await small.goto(signedIn(address('bravo'), token));
    await small.locator('a[href="#/group/web1"]').click();
    await small.getByRole('slider', { name: 'Point' }).waitFor();
    t.ok(await small.evaluate('document.documentElement.scrollWidth <= innerWidth'), `${viewport}, ${colours}: nothing is wider than the screen`);
    t.same(await barriers(small), [], `${viewport}, ${colours}`);
    await shoot(small, `test-${viewport}-${colours}`);
    await context.close();
  }
  await button('End the test').click();
  await button('End it').click();
  await done();
  t.same((await bravo.target.client.report()).tests, []);

  await button('Rehearse').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Rehearse' }).click();
  t.match(await done(), /Passed: ready after/);
  await page.getByText('Screen and serial port').click();
  await page.getByText(/AF (COUNTER|READY)/).first().waitFor();

  // The daemon dies: what is shown is said to be old, and is new again when it is back.
  await bravo.target.kill();
  await page.getByText(/data from .* ago/).waitFor();
  await bravo.target.start();
  await page.getByText('live', { exact: true }).waitFor();

  // Its guest's source finds it again a moment later, and is needed for what comes.
  await waitFor(async () => (await bravo.target.client.report()).sources.length > 0, { limitMs: waitMs, what: 'the source to be back' });
  // A planned failover there and back: it has to be meant.
  await button('Planned failover').click();
  await page.getByRole('region', { name: 'Plan' }).waitFor();
  t.match(await page.getByRole('dialog').innerText(), /Lost\s*nothing/);
  t.ok(await button('Move').isDisabled());
  await typed();
  await shoot(page, 'planned');
  await button('Move').click();
  t.match(await done(), /Lost\s*nothing/);
  t.match(await bravo.group('web1'), { term: 2 });
  await page.getByRole('heading', { name: 'Runs here' }).waitFor();
  await waitFor(async () => (await alpha.target.client.report()).groups[0]?.newest != null && (await bravo.guest('web1')).phase === 'protected', { limitMs: waitMs, what: 'the way home' });
  const home = await alpha.target.client.createToken('browser', 'administer', null);
  await page.goto(signedIn(address('alpha'), home.token));
  await page.reload();
  await page.locator('a[href="#/group/web1"]').click();
  await button('Bring home').click();
  await typed();
  await page.getByRole('dialog').getByRole('button', { name: 'Bring home', exact: true }).click();
  t.match(await done(), /Lost\s*nothing/);
  await alpha.newPoint('web1');

  // Its host is lost: failed over and rolled back, failed over and committed.
  await page.goto(signedIn(address('bravo'), token));
  await page.reload();
  await page.locator('a[href="#/group/web1"]').click();
  for (const decision of ['Roll back', 'Commit'] as const) {
    await page.getByRole('group', { name: 'Acts', exact: true }).getByRole('button', { name: 'Fail over', exact: true }).click();
    await page.getByRole('region', { name: 'Plan' }).waitFor();
    await typed();
    await page.getByRole('dialog').getByRole('button', { name: 'Fail over', exact: true }).click();
    t.match(await done(), /Booted\s*point/);
    await button(decision).click();
    await typed();
    await page.getByRole('dialog').getByRole('button', { name: decision, exact: true }).click();
    await done();
    if (decision === 'Roll back') await alpha.newPoint('web1');
  }
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: waitMs, what: 'the commit' });

  // Who may only look is refused by the daemon, and told so.
  const reader = await bravo.target.client.createToken('reader', 'read', null);
  await page.goto(signedIn(address('bravo'), reader.token));
  await page.reload();
  await page.locator('a[href="#/group/web1"]').click();
  await button('Check stored data').click();
  await button('Check').click();
  await page.getByRole('alert').getByText(/OPERATOR_SCOPE/).waitFor();
  t.same(refused.filter((text) => !/Failed to load resource|WebSocket connection/.test(text)), [], 'and the browser had nothing to say against it');
});
