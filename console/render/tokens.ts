/** Operators' tokens as a table. Pure. */
import type { OperatorToken } from '../api/operator-tokens.ts';
import { formatTable, tint, type Look } from './look.ts';
import { formatInstant } from './units.ts';

export function formatTokens(look: Look, tokens: readonly OperatorToken[], nowMs: number): string {
  if (tokens.length === 0) return 'no tokens: the API is for this host alone\n';
  const rows = tokens.map(({ name, scope, createdAtMs, expiresAtMs, usedAtMs }) => [
    name, scope, formatInstant(createdAtMs),
    expiresAtMs === null ? 'never' : expiresAtMs <= nowMs ? tint(look, 'bad', `${formatInstant(expiresAtMs)} (over)`) : formatInstant(expiresAtMs),
    usedAtMs === null ? 'never' : formatInstant(usedAtMs),
  ]);
  return formatTable(look, [{ head: 'token' }, { head: 'may' }, { head: 'made' }, { head: 'ends' }, { head: 'last used' }], rows);
}
