/** The colours of charts, from the page's own variables, so that dark and light fit. */
import { signal } from '@preact/signals';

const dark = matchMedia('(prefers-color-scheme: dark)');
/** Changes when the scheme does: charts are drawn anew. */
export const isDark = signal(dark.matches);
dark.addEventListener('change', ({ matches }) => { isDark.value = matches; });

export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
