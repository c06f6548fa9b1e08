/** The dashboard's end of the API: JSON over fetch, problems (RFC 9457) as errors with their code. It knows no route. */
import { token } from './session.ts';

export class Problem extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, detail: string) {
    super(detail);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
  }
}

interface Call {
  readonly method?: 'GET' | 'POST' | 'DELETE' | 'PUT';
  readonly body?: unknown;
  /** Given to acts: asked again with the same, it is done once (Idempotency-Key). */
  readonly key?: string;
  readonly signal?: AbortSignal;
}

/** Rejects with a {@link Problem}; `DAEMON_UNREACHABLE` where nobody answered. */
export async function call<T>(path: string, { method = 'GET', body, key, signal }: Call = {}): Promise<T> {
  const headers: Record<string, string> = {};
  if (token.value !== null) headers['authorization'] = `Bearer ${token.value}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (key !== undefined) headers['idempotency-key'] = `"${key}"`;
  let response: Response;
  try {
    response = await fetch(path, { method, headers, cache: 'no-store', ...(body === undefined ? {} : { body: JSON.stringify(body) }), ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new Problem(0, 'DAEMON_UNREACHABLE', 'the daemon does not answer');
  }
  if (response.status === 401) token.value = null;
  const text = await response.text();
  if (response.ok) return (text === '' ? undefined : JSON.parse(text)) as T;
  throw problemOf(response.status, text);
}

function problemOf(status: number, text: string): Problem {
  try {
    const { code, detail, title } = JSON.parse(text) as { code?: string; detail?: string; title?: string };
    return new Problem(status, code ?? String(status), detail ?? title ?? `status ${status}`);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return new Problem(status, String(status), `the daemon answered with status ${status}`);
  }
}

export function pathOf(...parts: readonly string[]): string {
  return `/v1/${parts.map((part) => encodeURIComponent(part)).join('/')}`;
}

export function messageOf(error: unknown): string {
  return error instanceof Problem ? `${error.message} (${error.code})` : error instanceof Error ? error.message : String(error);
}
