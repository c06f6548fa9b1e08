/**
 * The command line's end of the operator's API, typed from the tables of its routes. Every failure is a `Fault` (api-call.ts).
 */
import type { AdoptRequest, MarkRequest, PairedTarget, ProtectRequest, SurrenderedGuest } from '../daemon/operations.ts';
import type { SourcePairingsReport, SourceRotationReport } from '../daemon/pairing/paired-targets.ts';
import type { MarkedPoint, SourceReport } from '../daemon/report.ts';
import type { RehearsalRequest } from '../replica-target/failover/rehearsal.ts';
import type { RehearsalReport } from '../replica-target/failover/rehearsal-report.ts';
import type { Runbook } from '../replica-target/failover/runbook-plan.ts';
import type { StartReport } from '../replica-target/failover/start-finding.ts';
import type { GroupTimeline, HeldPoint, HoldRequest, LockedPoint, LockRequest, PointDescription } from '../replica-target/points/point-desk.ts';
import type { FailoverRequest, FailoverResult, PlanRequest, StartRequest, TestRequest, TestResult } from '../replica-target/operations.ts';
import type { Invitation, InvitationRequest, RotationReport, TargetPairingsReport } from '../replica-target/pairing/target-pairing.ts';
import type { CaptureChoice } from '../daemon/capture/capture.ts';
import { formatPoint, type PointId } from '../journal/point.ts';
import type { DiskChanges } from '../replica-target/points/points.ts';
import type { Verification } from '../replica-target/points/verify.ts';
import type { TargetReport } from '../replica-target/report.ts';
import type { StoredPoint } from '../replica-target/store/store.ts';
import type { SuspicionFlag } from '../replica-target/suspicion/group-suspicion.ts';
import type { AlertTestResult } from './alerts/alert-options.ts';
import type { MadeToken, OperatorToken } from './api/operator-tokens.ts';
import { pageItemsMax } from './api/page.ts';
import { fillPath, type AnyRoute, type CallInput, type CallResult, type Scope } from './api/route.ts';
import { serviceRoutes } from './api/service-routes.ts';
import { sourceRoutes } from './api/source-routes.ts';
import { targetRoutes } from './api/target-routes.ts';
import { callApi, namePlace, type ApiPlace } from './api-call.ts';

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

interface AnyInput { readonly params?: object | undefined; readonly query?: object | undefined; readonly body?: unknown }

/** What both roles are asked. */
export class ControlClient {
  readonly place: ApiPlace;
  /** The place for people; of a local one, the path of the control socket. */
  readonly path: string;

  constructor(place: ApiPlace) {
    this.place = place;
    this.path = namePlace(place);
  }

  about(): Promise<{ readonly role: 'source' | 'target'; readonly version: string }> { return this.call(serviceRoutes.about, {}); }
  anyReport(): Promise<SourceReport | TargetReport> { return this.call<typeof sourceRoutes.report | typeof targetRoutes.report>(sourceRoutes.report, {}); }
  async tokens(): Promise<readonly OperatorToken[]> { return (await this.call(serviceRoutes.listTokens, {})).items; }
  createToken(name: string, scope: Scope, forMs: number | null): Promise<MadeToken> { return this.call(serviceRoutes.createToken, { body: { name, scope, forMs } }); }
  async revokeToken(name: string): Promise<void> { await this.call(serviceRoutes.revokeToken, { params: { name } }); }

  /** On each way out that the daemon's config names; none when it names none. */
  async testAlerts(): Promise<readonly AlertTestResult[]> { return (await this.call(serviceRoutes.testAlerts, {})).results; }

  /** Any route of a table. `timeoutMs` absent: what is short for a question and enough for an act. */
  async call<T extends AnyRoute>(route: T, input: CallInput<T>, timeoutMs = route.method === 'GET' ? answerMsMax : actMsMax): Promise<CallResult<T>> {
    const { params, query, body } = input as AnyInput;
    return await callApi(this.place, { method: route.method, path: fillPath(route.path, { ...params }, { ...query }), body, timeoutMs }) as CallResult<T>;
  }
}

export class SourceClient extends ControlClient {
  report(): Promise<SourceReport> { return this.call(sourceRoutes.report, {}); }
  async sourceId(): Promise<string> { return (await this.call(sourceRoutes.identity, {})).sourceId; }
  pair(token: string): Promise<PairedTarget> { return this.call(sourceRoutes.pair, { body: { token } }); }
  pairings(): Promise<SourcePairingsReport> { return this.call(sourceRoutes.pairings, {}); }
  revoke(which: string): Promise<{ readonly name: string }> { return this.call(sourceRoutes.revoke, { body: { which } }); }
  rotate(isNow: boolean): Promise<SourceRotationReport> { return this.call(sourceRoutes.rotate, { body: { isNow } }); }
  protect(body: ProtectRequest): Promise<{ name: string; groupId: string; target: string }> { return this.call(sourceRoutes.protect, { body: mutable(body) }); }
  async adopt(body: AdoptRequest): Promise<void> { await this.call(sourceRoutes.adopt, { body: mutable(body) }); }
  async surrender(groupId: string, term: number): Promise<SurrenderedGuest | null> { return (await this.call(sourceRoutes.surrender, { params: { groupId }, body: { term } })).guest; }
  async abandon(groupId: string): Promise<void> { await this.call(sourceRoutes.abandon, { params: { groupId } }); }
  async unprotect(guest: string, isForgotten: boolean): Promise<void> { await this.call(sourceRoutes.unprotect, { params: { guest }, query: isForgotten ? { forget: 'true' } : {} }, longMsMax); }
  async resync(guest: string): Promise<void> { await this.call(sourceRoutes.resync, { params: { guest } }); }
  async pause(guest: string): Promise<void> { await this.call(sourceRoutes.pause, { params: { guest } }); }
  async resume(guest: string): Promise<void> { await this.call(sourceRoutes.resume, { params: { guest } }); }
  mark({ name: guest, ...body }: MarkRequest): Promise<MarkedPoint> { return this.call(sourceRoutes.mark, { params: { guest }, body }, longMsMax + answerMsMax); }
  async setCapture(guest: string, capture: CaptureChoice): Promise<void> { await this.call(sourceRoutes.setCapture, { params: { guest }, body: { capture } }); }
  async setQmpPath(guest: string, qmpPath: string): Promise<void> { await this.call(sourceRoutes.setQmpPath, { params: { guest }, body: { qmpPath } }); }
  async setRate(guest: string, rateBytesPerSecond: number): Promise<void> { await this.call(sourceRoutes.setRate, { params: { guest }, body: { rateBytesPerSecond } }); }
}

export class TargetClient extends ControlClient {
  report(): Promise<TargetReport> { return this.call(targetRoutes.report, {}); }
  /** Newest last. */
  async points(group: string): Promise<readonly StoredPoint[]> {
    const points: StoredPoint[] = [];
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = await this.call(targetRoutes.sealedPoints, { params: { group }, query: { limit: pageItemsMax, order: 'oldest', cursor } });
      points.push(...page.items);
      cursor = page.next;
    }
    return points;
  }
  timeline(group: string): Promise<GroupTimeline> { return this.call(targetRoutes.timeline, { params: { group } }); }
  describePoint(group: string, at: string): Promise<PointDescription> { return this.call(targetRoutes.describePoint, { params: { group, at } }); }
  holdPoint({ group, at, ...body }: HoldRequest): Promise<HeldPoint> { return this.call(targetRoutes.holdPoint, { params: { group, at }, body }); }
  lockPoint({ group, at, ...body }: LockRequest): Promise<LockedPoint> { return this.call(targetRoutes.lockPoint, { params: { group, at }, body }); }
  async forget(group: string): Promise<void> { await this.call(targetRoutes.forget, { params: { group } }, longMsMax); }
  async releasePoint(group: string, holdId: string): Promise<void> { await this.call(targetRoutes.releasePoint, { params: { group, holdId } }); }
  dismiss(group: string): Promise<SuspicionFlag> { return this.call(targetRoutes.dismiss, { params: { group } }); }
  verify(group: string, at: string | undefined): Promise<Verification> { return this.call(targetRoutes.verify, { params: { group }, body: { at } }, readingMsMax); }
  changedSince(group: string, since: PointId, point: PointId): Promise<readonly DiskChanges[]> { return this.call(targetRoutes.changes, { params: { group }, query: { since: formatPoint(since), point: formatPoint(point) } }, actMsMax); }
  invite(body: InvitationRequest = {}): Promise<Invitation> { return this.call(targetRoutes.invite, { body: { ...body } }); }
  pairings(): Promise<TargetPairingsReport> { return this.call(targetRoutes.pairings, {}); }
  revoke(which: string): Promise<{ readonly name: string; readonly sourceId: string }> { return this.call(targetRoutes.revoke, { body: { which } }); }
  async revokeOldSecrets(): Promise<number> { return (await this.call(targetRoutes.revokeOldSecrets, {})).count; }
  rotate(isNow: boolean): Promise<RotationReport> { return this.call(targetRoutes.rotate, { body: { isNow } }); }
  checkStart({ group, ...body }: StartRequest): Promise<StartReport> { return this.call(targetRoutes.checkStart, { params: { group }, body }); }
  failover({ group, ...body }: FailoverRequest): Promise<FailoverResult> { return this.call(targetRoutes.failover, { params: { group }, body }, longMsMax); }
  async stopFailover(group: string, isRolledBack: boolean): Promise<void> { await this.call(targetRoutes.stopFailover, { params: { group }, body: { isRolledBack } }, longMsMax); }
  async commitFailover(group: string): Promise<void> { await this.call(targetRoutes.commitFailover, { params: { group } }); }
  testFailover({ group, ...body }: TestRequest): Promise<TestResult> { return this.call(targetRoutes.testFailover, { params: { group }, body }, longMsMax); }
  plan({ group, at, isPlanned }: PlanRequest): Promise<Runbook> { return this.call(targetRoutes.plan, { params: { group }, query: { at, ...(isPlanned === true ? { planned: 'true' } : {}) } }, actMsMax); }
  rehearse({ group, ...body }: RehearsalRequest): Promise<RehearsalReport & { readonly folder: string }> { return this.call(targetRoutes.rehearse, { params: { group }, body }, rehearsalMsMax); }
  async stopTest(group: string): Promise<void> { await this.call(targetRoutes.stopTest, { params: { group } }, longMsMax); }
  async seedFrom(group: string, disk: number, imagePath: string): Promise<void> { await this.call(targetRoutes.seedFrom, { params: { group, disk }, body: { imagePath } }, longMsMax); }
}

/** Shapes are of arrays that may change; what is sent is not changed. */
type Mutable<T> = T extends readonly (infer E)[] ? Mutable<E>[] : T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;
function mutable<T>(value: T): Mutable<T> {
  return value as Mutable<T>;
}
