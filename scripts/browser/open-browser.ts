/**
 * Debian's Chromium without a window, driven by playwright-core: for tests, screenshots and measurements of the dashboard. It speaks to loopback alone, and takes the daemons'
 * own certificates, which no authority signed.
 */
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';

/** Left to themselves these parts of Chromium ask for hosts of its maker's. */
const quiet = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const viewports = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } } as const;
export type Viewport = keyof typeof viewports;

export function openBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env['AFTERIMAGE_CHROMIUM'] ?? '/usr/bin/chromium', args: quiet, timeout: 60_000 });
}

/** `colours`: which scheme the page is told that its reader prefers. */
export async function openPage(browser: Browser, viewport: Viewport, colours: 'light' | 'dark' = 'light'): Promise<{ readonly page: Page; readonly context: BrowserContext }> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: viewports[viewport], colorScheme: colours, deviceScaleFactor: 1, hasTouch: viewport === 'phone' });
  return { page: await context.newPage(), context };
}

/** The address that signs its reader in: browsers send to nobody what stands behind the `#`. */
export function signedIn(address: string, token: string): string {
  return `${address}/#token=${token}`;
}
