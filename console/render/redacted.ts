/**
 * Takes secrets out of what leaves this host. Two nets, as either has holes: values whose key says that they are secret, and every text that is known
 * to be one, wherever it stands. What is left in place of it is `(redacted)`. Pure.
 */

export const redacted = '(redacted)';

/** A key of a config, a state file or a report whose value nobody else should see. `passwordFile` and the like name a file: the file is the secret. */
const secretKey = /pass|secret|token|psk|credential|cookie|authori[sz]ation|bearer|private|apikey|api_key|^key$|keyPem|keyHex|^mac$|nonce/i;
const fileKey = /(file|path|folder)$/i;
/** Whoever knows such an address may post to it: webhooks and heartbeats have their secret in path or query. */
const urlKey = /^url$|Url$/;
/** Of an address, parts that are shorter are words. */
const urlPartCharsMin = 12;
/** What a program is told on its command line may be a secret, and nobody can tell. */
const commandKey = /^command$/i;
/** Shorter texts stand in many places by chance. */
const secretCharsMin = 6;

/** A value as JSON or YAML has it; known secrets are taken out of all its texts. */
export function redactValue(value: unknown, secrets: ReadonlySet<string>, key = ''): unknown {
  if (commandKey.test(key) && Array.isArray(value)) return value.map((part: unknown, index) => (index === 0 ? redactValue(part, secrets) : redacted));
  if (value !== null && value !== undefined && isSecretKey(key)) return redacted;
  if (typeof value === 'string') return urlKey.test(key) ? redactUrl(value, secrets) : redactText(value, secrets);
  if (Array.isArray(value)) return value.map((one) => redactValue(one, secrets));
  if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([name, one]) => [redactText(name, secrets), redactValue(one, secrets, name)]));
  return value;
}

/** Any text: known secrets, PEM blocks, our own tokens, what stands behind a secret's name, and user and password in addresses. */
export function redactText(text: string, secrets: ReadonlySet<string>): string {
  let out = text;
  // The longest first: one may be a part of another.
  for (const secret of [...secrets].sort((a, b) => b.length - a.length)) if (secret.length >= secretCharsMin) out = out.replaceAll(secret, redacted);
  return out
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted)
    .replace(/\beyJ[A-Za-z0-9_-]{40,}/g, redacted)
    .replace(/\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}/gi, `$1 ${redacted}`)
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^/\s@"']+@/gi, `$1${redacted}@`)
    .replace(/("?\b\w*(?:password|passwd|secret|token|api_?key)\w*"?\s*[=:]\s*)("[^"]*"|[^\s,}"]+)/gi, (whole, name: string, value: string) => (fileKey.test(name.replace(/["\s=:]/g, '')) || value.includes(redacted) ? whole : `${name}${redacted}`));
}

/** All that `value` keeps under keys of secrets, for {@link redactText}. */
export function secretsIn(value: unknown, key = ''): string[] {
  if (typeof value === 'string' && urlKey.test(key)) return secretsInUrl(value);
  if (typeof value === 'string') return isSecretKey(key) || value.includes('PRIVATE KEY-----') ? [value, ...value.split('\n').filter((line) => line.length > 20)] : [];
  if (Array.isArray(value)) return value.flatMap((one) => secretsIn(one, key));
  if (typeof value === 'object' && value !== null) return Object.entries(value).flatMap(([name, one]) => secretsIn(one, name));
  return [];
}

/** Where it leads stays, what it says there does not. */
function redactUrl(text: string, secrets: ReadonlySet<string>): string {
  if (!URL.canParse(text)) return redacted;
  const { origin, pathname, search, hash, protocol, host } = new URL(text);
  if (isBare({ pathname, search, hash })) return redactText(text, secrets);
  return `${origin === 'null' ? `${protocol}//${host}` : origin}/${redacted}`;
}

/** The whole address as it is written and as it is sent, and what is long enough of its path and query to be a secret by itself. */
function secretsInUrl(text: string): string[] {
  if (!URL.canParse(text)) return [text];
  const url = new URL(text);
  if (isBare(url)) return [];
  const parts = [...url.pathname.split('/'), ...url.search.split(/[?&=]/), ...url.searchParams.values()].filter((part) => part.length >= urlPartCharsMin);
  return [text, url.href, ...parts];
}

function isBare({ pathname, search, hash }: Pick<URL, 'pathname' | 'search' | 'hash'>): boolean {
  return (pathname === '' || pathname === '/') && search === '' && hash === '';
}

function isSecretKey(key: string): boolean {
  return secretKey.test(key) && !fileKey.test(key);
}
