/**
 * Failures over HTTP: RFC 9457 problem details, made from a fault and read back into one. `type` is a path of this very API that
 * answers with the code's row of the fault table; `code` and `facts` are extension members.
 */
import { z } from 'zod';
import { Fault, faultTable, isFault, type FaultCode } from '../../journal/fault.ts';

/** RFC 9457, section 3. */
export const problemMediaType = 'application/problem+json';

export const problemShape = z.looseObject({
  type: z.string().meta({ description: 'a path of this API: the code’s row of the fault table' }),
  title: z.string().meta({ description: 'what the code means' }),
  status: z.number().int(),
  detail: z.string().meta({ description: 'what happened this time, for people' }),
  code: z.string().max(40).meta({ description: 'for programs' }),
  facts: z.record(z.string(), z.unknown()).default({}),
  operatorCan: z.string().optional().meta({ description: 'what a person can do about it' }),
});
export type Problem = z.output<typeof problemShape>;

/** `status` where the request says more than the code does (a path that is not there, a body that is too large). */
export function problemOf(fault: Fault, status: number = statusOf(fault.code)): Problem {
  const row = faultTable[fault.code];
  return { type: `/v1/explain/${fault.code}`, title: row.meaning, status, detail: fault.message, code: fault.code, facts: { ...fault.facts }, operatorCan: row.operatorCan };
}

/** Null when `value` is no problem of ours. */
export function faultOf(value: unknown): Fault | null {
  const parsed = problemShape.safeParse(value);
  if (!parsed.success) return null;
  const { code, detail, facts } = parsed.data;
  // A daemon of another release may know codes that this one does not.
  if (!Object.hasOwn(faultTable, code)) return new Fault('REQUEST_INVALID', `${code}: ${detail}`, { ...facts, code });
  return new Fault(code as FaultCode, detail, facts);
}

/** What the web server itself refuses (no JSON, too large) is the request's fault; anything else that is no fault is a bug. */
export function asFault(error: Error & { statusCode?: number }): Fault {
  if (isFault(error)) return error;
  if (isRefusal(error)) return new Fault('REQUEST_INVALID', error.message);
  return new Fault('INTERNAL', `the daemon failed in a way that was taken for impossible: ${error.message}`);
}

export function isRefusal(error: { statusCode?: number }): boolean {
  return error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500;
}

export function statusOf(code: FaultCode): number {
  switch (code) {
    case 'REQUEST_INVALID': case 'PAIRING_TOKEN': return 400;
    case 'OPERATOR_TOKEN': return 401;
    case 'OPERATOR_SCOPE': case 'CONTROL_PEER': case 'ADOPTION_REFUSED': return 403;
    case 'GROUP_UNKNOWN': case 'POINT_UNKNOWN': case 'DISK_UNKNOWN': return 404;
    case 'POINT_GONE': return 410;
    case 'KEY_REUSED': return 422;
    case 'REQUEST_FLOOD': return 429;
    case 'INTERNAL': return 500;
    case 'STORE_FULL': case 'TEST_SPACE': case 'COMMIT_SPACE': case 'SPOOL_FULL': case 'RETENTION_FULL': return 507;
    default: return 409;
  }
}

/** Facts may hold what JSON has no word for. */
export function jsonText(body: unknown): string {
  return JSON.stringify(body, (_key, value: unknown) => {
    if (typeof value === 'bigint') return value.toString();
    if (value instanceof Error) return value.message;
    return value;
  });
}
