/** Which page is shown, behind the address's `#`: `#/`, `#/group/web`, `#/audit`. */
import { signal } from '@preact/signals';

export type Place = { readonly page: 'overview' } | { readonly page: 'group'; readonly group: string } | { readonly page: 'audit' };

function read(): Place {
  const [, page, name] = location.hash.replace(/^#/, '').split('/');
  if (page === 'group' && name !== undefined && name !== '') return { page, group: decodeURIComponent(name) };
  return page === 'audit' ? { page } : { page: 'overview' };
}

export const place = signal<Place>(read());
addEventListener('hashchange', () => {
  place.value = read();
  // A new page is read from its top, and by a screen reader from its heading.
  scrollTo(0, 0);
  requestAnimationFrame(() => document.querySelector<HTMLElement>('h1')?.focus());
});

export const groupHref = (name: string): string => `#/group/${encodeURIComponent(name)}`;
