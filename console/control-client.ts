/**
 * The command line's end of the operator's API. Every failure is a `Fault`: those of the daemon as they were thrown there,
 * and DAEMON_UNREACHABLE when no one answers.
 */
import { request } from 'node:http';
import type { AdoptRequest, MarkRequest, PairedTarget, ProtectRequest, SurrenderedGuest } from '../daemon/operations.ts';
import type { SourcePairingsReport, SourceRotationReport } from '../daemon/pairing/paired-targets.ts';
import type { MarkedPoint, SourceReport } from '../daemon/report.ts';
import { Fault, faultTable, type FaultCode } from '../journal/fault.ts';
import type { RehearsalRequest } from '../replica-target/failover/rehearsal.ts';
import type { RehearsalReport } from '../replica-target/failover/rehearsal-report.ts';
import type { Runbook } from '../replica-target/failover/runbook-plan.ts';
import type { StartReport } from '../replica-target/failover/start-finding.ts';
import type { FailoverRequest, FailoverResult, PlanRequest, StartRequest, TestRequest, TestResult } from '../replica-target/operations.ts';
import type { Invitation, InvitationRequest, RotationReport, TargetPairingsReport } from '../replica-target/pairing/target-pairing.ts';
import type { GroupTimeline, HeldPoint, HoldRequest, PointDescription } from '../replica-target/points/point-desk.ts';
import type { CaptureChoice } from '../daemon/capture/capture.ts';
import type { PointId } from '../journal/point.ts';
import type { DiskChanges } from '../replica-target/points/points.ts';
import type { Verification } from '../replica-target/points/verify.ts';
import type { TargetReport } from '../replica-target/report.ts';
import type { StoredPoint } from '../replica-target/store/store.ts';
import { errorReply } from './control-api.ts';

/** For what a daemon answers from memory, ms. */
const answerMsMax = 15_000;
/** For what connects to a guest or a target first, ms. */
const actMsMax = 120_000;
/** A failover applies what is sealed and boots a guest; an unprotect merges and removes. Ended only by hand before this, ms. */
const longMsMax = 3_600_000;
/** Guests that start one after the other may each take an hour to be ready. */
const rehearsalMsMax = 86_400_000;
/** For all that is stored of a guest to be read, ms. */
const readingMsMax = 7 * 86_400_000;

class ControlClient {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  protected get<T>(route: string, timeoutMs = answerMsMax): Promise<T> {
    return call<T>(this.path, 'GET', route, undefined, timeoutMs);
  }

  protected post<T>(route: string, body: unknown, timeoutMs = actMsMax): Promise<T> {
    return call<T>(this.path, 'POST', route, body, timeoutMs);
  }
}

export class SourceClient extends ControlClient {
  report(): Promise<SourceReport> { return this.get('/report'); }
  pair(token: string): Promise<PairedTarget> { return this.post('/pair', { token }); }
  pairings(): Promise<SourcePairingsReport> { return this.get('/pairings'); }
  revoke(which: string): Promise<{ readonly name: string }> { return this.post('/revoke', { which }); }
  rotate(isNow: boolean): Promise<SourceRotationReport> { return this.post('/rotate', { isNow }); }
  protect(body: ProtectRequest): Promise<{ name: string; groupId: string; target: string }> { return this.post('/protect', body); }
  async adopt(body: AdoptRequest): Promise<void> { await this.post('/adopt', body); }
  async surrender(groupId: string, term: number): Promise<SurrenderedGuest | null> { return (await this.post<{ guest: SurrenderedGuest | null }>('/surrender', { groupId, term })).guest; }
  async abandon(groupId: string): Promise<void> { await this.post('/abandon', { groupId }); }
  async unprotect(name: string, isForgotten: boolean): Promise<void> { await this.post('/unprotect', { name, isForgotten }, longMsMax); }
  async resync(name: string): Promise<void> { await this.post('/resync', { name }); }
  async pause(name: string): Promise<void> { await this.post('/pause', { name }); }
  async resume(name: string): Promise<void> { await this.post('/resume', { name }); }
  mark(body: MarkRequest): Promise<MarkedPoint> { return this.post('/mark', body, longMsMax + answerMsMax); }
  async setCapture(name: string, capture: CaptureChoice): Promise<void> { await this.post('/capture', { name, capture }); }
  async setQmpPath(name: string, qmpPath: string): Promise<void> { await this.post('/qmp-path', { name, qmpPath }); }
  async setRate(name: string, rateBytesPerSecond: number): Promise<void> { await this.post('/rate', { name, rateBytesPerSecond }); }
}

export class TargetClient extends ControlClient {
  report(): Promise<TargetReport> { return this.get('/report'); }
  points(group: string): Promise<readonly StoredPoint[]> { return this.get(`/points?group=${encodeURIComponent(group)}`); }
  timeline(group: string): Promise<GroupTimeline> { return this.get(`/timeline?group=${encodeURIComponent(group)}`); }
  describePoint(group: string, at: string): Promise<PointDescription> { return this.get(`/point?group=${encodeURIComponent(group)}&at=${encodeURIComponent(at)}`); }
  holdPoint(body: HoldRequest): Promise<HeldPoint> { return this.post('/point/hold', body); }
  async releasePoint(group: string, holdId: string): Promise<void> { await this.post('/point/release', { group, holdId }); }
  verify(group: string, at: string | undefined): Promise<Verification> { return this.post('/verify', { group, ...(at === undefined ? {} : { at }) }, readingMsMax); }
  changedSince(groupId: string, since: PointId, point: PointId): Promise<readonly DiskChanges[]> { return this.post('/changes', { groupId, since: idOf(since), point: idOf(point) }); }
  invite(body: InvitationRequest = {}): Promise<Invitation> { return this.post('/invite', body); }
  pairings(): Promise<TargetPairingsReport> { return this.get('/pairings'); }
  revoke(which: string): Promise<{ readonly name: string; readonly sourceId: string }> { return this.post('/revoke', { which }); }
  async revokeOldSecrets(): Promise<number> { return (await this.post<{ count: number }>('/revoke/old-secrets', {})).count; }
  rotate(isNow: boolean): Promise<RotationReport> { return this.post('/rotate', { isNow }); }
  checkStart(body: StartRequest): Promise<StartReport> { return this.post('/start-check', body); }
  failover(body: FailoverRequest): Promise<FailoverResult> { return this.post('/failover', body, longMsMax); }
  async stopFailover(group: string, isRolledBack: boolean): Promise<void> { await this.post('/failover/stop', { group, isRolledBack }, longMsMax); }
  async commitFailover(group: string): Promise<void> { await this.post('/failover/commit', { group }); }
  testFailover(body: TestRequest): Promise<TestResult> { return this.post('/test', body, longMsMax); }
  plan(body: PlanRequest): Promise<Runbook> { return this.post('/plan', body); }
  rehearse(body: RehearsalRequest): Promise<RehearsalReport & { readonly folder: string }> { return this.post('/rehearse', body, rehearsalMsMax); }
  async stopTest(group: string): Promise<void> { await this.post('/test/stop', { group }, longMsMax); }
  async seedFrom(group: string, disk: number, imagePath: string): Promise<void> { await this.post('/seed-from', { group, disk, imagePath }, longMsMax); }
}

function idOf({ term, point }: PointId): PointId {
  return { term, point };
}

function call<T>(socketPath: string, method: 'GET' | 'POST', path: string, body: unknown, timeoutMs: number): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const outgoing = request({
      socketPath, path, method, agent: false,
      headers: text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
    });
    const timer = setTimeout(() => outgoing.destroy(new Fault('DAEMON_UNREACHABLE', `the daemon at ${socketPath} did not answer ${method} ${path} within ${timeoutMs / 1000} s`, { socketPath, timeoutMs })), timeoutMs);
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      act();
    };
    const failed = (error: Error): void => settle(() => reject(unreachable(socketPath, error)));
    outgoing.on('error', failed);
    outgoing.on('response', (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('error', failed);
      incoming.on('end', () => settle(() => {
        const reply = readReply(socketPath, incoming.statusCode ?? 0, Buffer.concat(chunks).toString('utf8'));
        if (reply instanceof Fault) reject(reply);
        else resolve(reply.value as T);
      }));
    });
    outgoing.end(text);
  });
}

function readReply(socketPath: string, status: number, text: string): { readonly value: unknown } | Fault {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return new Fault('DAEMON_UNREACHABLE', `what answers at ${socketPath} is no Afterimage daemon`, { socketPath, status }, error);
  }
  if (status === 200) return { value };
  const parsed = errorReply.safeParse(value);
  if (!parsed.success) return new Fault('DAEMON_UNREACHABLE', `what answers at ${socketPath} is no Afterimage daemon`, { socketPath, status });
  const { code, message, facts } = parsed.data;
  // A daemon of another release may know codes that this one does not.
  if (!Object.hasOwn(faultTable, code)) return new Fault('REQUEST_INVALID', `${code}: ${message}`, { ...facts, code });
  return new Fault(code as FaultCode, message, facts);
}

function unreachable(socketPath: string, error: Error): Fault {
  if (error instanceof Fault) return error;
  const { code } = error as NodeJS.ErrnoException;
  const why = code === 'ENOENT' ? 'there is no such socket'
    : code === 'ECONNREFUSED' ? 'nobody listens there any more'
    : code === 'EACCES' ? 'this user may not connect to it (use sudo, or the daemon’s own user)'
    : code === 'ECONNRESET' ? 'the daemon ended in the middle of it'
    : error.message;
  return new Fault('DAEMON_UNREACHABLE', `no daemon answers at ${socketPath}: ${why}`, { socketPath, error: code }, error);
}
