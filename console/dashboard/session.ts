/**
 * The operator's token, as long as this tab lives: in sessionStorage, which no other tab and no other site reads, and sent in the Authorization header alone. A link
 * may bring it behind `#token=`, which browsers send to nobody; it is taken out of the address at once.
 */
import { signal } from '@preact/signals';

const place = 'afterimage-token';

function tokenOfAddress(): string | null {
  const found = /^#token=([\w.~+/=-]+)$/.exec(location.hash)?.[1] ?? null;
  if (found !== null) history.replaceState(null, '', `${location.pathname}#/`);
  return found;
}

export const token = signal<string | null>(tokenOfAddress() ?? sessionStorage.getItem(place));
token.subscribe((now) => {
  if (now === null) sessionStorage.removeItem(place);
  else sessionStorage.setItem(place, now);
});

export function signOut(): void {
  token.value = null;
}
