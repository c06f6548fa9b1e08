/** The target's routes: one entry each, from which all else comes (route.ts). */
import { z } from 'zod';
import { Fault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import type { TargetOperations } from '../../replica-target/operations.ts';
import { requestBodies, selector } from '../control-api.ts';
import { pageOfPoints, pageQuery, pageResponse } from './page.ts';
import { routeOf, type Actor, type RouteTable } from './route.ts';
import { serviceRoutes } from './service-routes.ts';
import { changesShape, descriptionShape, heldPointShape, restorePointShape, storedPointShape, suspicionFlagShape, timelineShape, verificationShape } from './shapes/point-shapes.ts';
import { rotationShape } from './shapes/certificate-shapes.ts';
import { failoverResultShape, groupDetailShape, groupShape, invitationShape, rehearsalShape, runbookShape, shownGuestsShape, startReportShape, targetPairingsShape, targetReportShape, testResultShape } from './shapes/target-shapes.ts';

const route = routeOf<TargetOperations>();

const ofGroup = z.strictObject({ group: safeName.meta({ description: 'its name or its id' }) });
const ofPoint = ofGroup.extend({ at: selector.meta({ description: 'newest, a number (7, 2.7), a time (ISO 8601 or ms since 1970), -15m, or a label' }) });
/** `TERM.POINT`. */
const pointId = z.string().regex(/^\d{1,10}\.\d{1,16}$/, 'expected TERM.POINT').transform((text) => {
  const [term, point] = text.split('.');
  return { term: Number(term), point: Number(point) };
});

export const targetRoutes = {
  ...serviceRoutes,
  report: route({
    method: 'GET', path: '/v1/report', scope: 'read', summary: 'All that the target knows of itself', response: targetReportShape,
    handle: ({ operations }) => operations.report(),
  }),
  groups: route({
    method: 'GET', path: '/v1/groups', scope: 'read', summary: 'The groups that are here', response: z.looseObject({ items: z.array(groupShape) }),
    handle: ({ operations }) => ({ items: operations.report().groups }),
  }),
  group: route({
    method: 'GET', path: '/v1/groups/{group}', scope: 'read', summary: 'All that the report says of one group', params: ofGroup, response: groupDetailShape,
    handle: ({ operations }, { params }) => groupDetail(operations, params.group),
  }),
  points: route({
    method: 'GET', path: '/v1/groups/{group}/points', scope: 'read', summary: 'The points that can be had, page by page', params: ofGroup, query: pageQuery, response: pageResponse(restorePointShape),
    handle: async ({ operations }, { params, query }) => pageOfPoints((await operations.timeline(params.group)).points, query),
  }),
  sealedPoints: route({
    method: 'GET', path: '/v1/groups/{group}/sealed-points', scope: 'read', summary: 'The points as the store has them, page by page', params: ofGroup, query: pageQuery, response: pageResponse(storedPointShape),
    handle: async ({ operations }, { params, query }) => pageOfPoints(await operations.points(params.group), query),
  }),
  timeline: route({
    method: 'GET', path: '/v1/groups/{group}/timeline', scope: 'read', summary: 'All points that can be had, which ranges they form, and what is held', params: ofGroup, response: timelineShape,
    handle: ({ operations }, { params }) => operations.timeline(params.group),
  }),
  describePoint: route({
    method: 'GET', path: '/v1/groups/{group}/points/{at}', scope: 'read', summary: 'One point with its disks', params: ofPoint, response: descriptionShape,
    handle: ({ operations }, { params: { group, at } }) => operations.describePoint(group, at),
  }),
  holdPoint: route({
    method: 'POST', path: '/v1/groups/{group}/points/{at}/holds', scope: 'operate', summary: 'Keep a point', params: ofPoint, body: requestBodies.holdPoint.omit({ group: true, at: true }), response: heldPointShape,
    handle: ({ operations }, { params, body }) => operations.holdPoint({ ...params, ...body }),
  }),
  lockPoint: route({
    method: 'POST', path: '/v1/groups/{group}/points/{at}/locks', scope: 'administer', summary: 'Keep a point until a date, whoever asks otherwise', params: ofPoint, body: requestBodies.lockPoint.omit({ group: true, at: true }), response: heldPointShape,
    handle: ({ operations }, { params, body }) => operations.lockPoint({ ...params, ...body }),
  }),
  forget: route({
    method: 'DELETE', path: '/v1/groups/{group}', scope: 'administer', summary: 'Remove a group with all its points', params: ofGroup,
    handle: ({ operations }, { params: { group } }) => operations.forget(group),
  }),
  releasePoint: route({
    method: 'DELETE', path: '/v1/groups/{group}/holds/{holdId}', scope: 'administer', summary: 'Keep a point no longer', params: requestBodies.releasePoint,
    handle: ({ operations }, { params: { group, holdId } }) => operations.releasePoint(group, holdId),
  }),
  dismiss: route({
    method: 'POST', path: '/v1/groups/{group}/dismiss', scope: 'administer', summary: 'Somebody has looked at a suspicion, and it was nothing', params: ofGroup, response: suspicionFlagShape,
    handle: ({ operations }, { params: { group } }) => operations.dismiss(group),
  }),
  verify: route({
    method: 'POST', path: '/v1/groups/{group}/verify', scope: 'operate', summary: 'Check all that is stored of a group', params: ofGroup, body: requestBodies.verify.omit({ group: true }), response: verificationShape,
    handle: ({ operations }, { params: { group }, body: { at } }) => operations.verify(group, at ?? null),
  }),
  changes: route({
    method: 'GET', path: '/v1/groups/{group}/changes', scope: 'read', summary: 'What changed between two points', params: ofGroup, query: z.strictObject({ since: pointId, point: pointId }), response: changesShape,
    handle: ({ operations }, { params: { group }, query: { since, point } }) => operations.changedSince(group, since, point),
  }),
  plan: route({
    method: 'GET', path: '/v1/groups/{group}/plan', scope: 'read', summary: 'What a failover would do, lose and take', params: ofGroup, response: runbookShape,
    query: z.strictObject({ at: selector.optional(), planned: z.stringbool({ truthy: ['true'], falsy: ['false'] }).optional() }),
    handle: ({ operations }, { params: { group }, query: { at, planned } }) => operations.plan({ group, at, isPlanned: planned }),
  }),
  checkStart: route({
    method: 'POST', path: '/v1/groups/{group}/start-check', scope: 'operate', isRead: true, summary: 'Whether its guests could start here; changes nothing', params: ofGroup, body: requestBodies.startCheck.omit({ group: true }), response: startReportShape,
    handle: ({ operations }, { params, body }) => operations.checkStart({ ...params, ...body }),
  }),
  failover: route({
    method: 'POST', path: '/v1/groups/{group}/failover', scope: 'administer', summary: 'Boot the group here in a new term', params: ofGroup, body: requestBodies.failover.omit({ group: true }), response: failoverResultShape,
    handle: ({ operations }, { params, body }) => operations.failover({ ...params, ...body }),
  }),
  stopFailover: route({
    method: 'POST', path: '/v1/groups/{group}/failover/stop', scope: 'administer', summary: 'End what a failover started, or undo it', params: ofGroup, body: requestBodies.failoverStop.omit({ group: true }),
    handle: ({ operations }, { params: { group }, body: { isRolledBack } }) => operations.stopFailover(group, isRolledBack ?? false),
  }),
  commitFailover: route({
    method: 'POST', path: '/v1/groups/{group}/commit', scope: 'administer', summary: 'Make a failover final', params: ofGroup,
    handle: ({ operations }, { params: { group } }) => operations.commitFailover(group),
  }),
  testFailover: route({
    method: 'POST', path: '/v1/groups/{group}/test', scope: 'operate', summary: 'Boot a point beside its protection', params: ofGroup, body: requestBodies.testFailover.omit({ group: true }), response: testResultShape,
    handle: ({ operations, actor }, { params, body }) => operations.testFailover({ ...params, ...ownNetwork(actor, body) }),
  }),
  stopTest: route({
    method: 'POST', path: '/v1/groups/{group}/test/stop', scope: 'operate', summary: 'End a test and remove every trace of it', params: ofGroup,
    handle: ({ operations }, { params: { group } }) => operations.stopTest(group),
  }),
  rehearse: route({
    method: 'POST', path: '/v1/groups/{group}/rehearse', scope: 'operate', summary: 'A test whose guests have to become ready, with a report', params: ofGroup, body: requestBodies.rehearse.omit({ group: true }), response: rehearsalShape,
    handle: ({ operations, actor }, { params, body }) => operations.rehearse({ ...params, ...ownNetwork(actor, body) }),
  }),
  showGuests: route({
    method: 'GET', path: '/v1/groups/{group}/console', scope: 'operate', summary: 'The screens and serial ports of its guests that run here', params: ofGroup, response: shownGuestsShape,
    handle: async ({ operations }, { params: { group } }) => ({ items: await operations.showGuests(group) }),
  }),
  showRehearsal: route({
    method: 'GET', path: '/v1/groups/{group}/rehearsal', scope: 'operate', summary: 'What its guests showed at the end of the last rehearsal', params: ofGroup, response: shownGuestsShape,
    handle: async ({ operations }, { params: { group } }) => ({ items: await operations.showRehearsal(group) }),
  }),
  seedFrom: route({
    method: 'POST', path: '/v1/groups/{group}/disks/{disk}/seed', scope: 'administer', summary: 'Put a raw image of this host under a disk, to be compared', params: ofGroup.extend({ disk: z.coerce.number().int().min(0).max(65_535) }), body: requestBodies.seedFrom.omit({ group: true, disk: true }),
    handle: ({ operations }, { params: { group, disk }, body: { imagePath } }) => operations.seedFrom(group, disk, imagePath),
  }),
  invite: route({
    method: 'POST', path: '/v1/invitations', scope: 'administer', isSecret: true, summary: 'A token that pairs one source, once', body: requestBodies.invite, response: invitationShape,
    handle: ({ operations }, { body }) => operations.invite(body),
  }),
  pairings: route({
    method: 'GET', path: '/v1/pairings', scope: 'read', summary: 'Who is paired with this target, and by which certificates', response: targetPairingsShape,
    handle: ({ operations }) => operations.pairings(),
  }),
  revoke: route({
    method: 'POST', path: '/v1/pairings/revoke', scope: 'administer', summary: 'End the pairing of a source, at once', body: requestBodies.revoke, response: z.looseObject({ name: z.string(), sourceId: z.string() }),
    handle: ({ operations }, { body: { which } }) => operations.revoke(which),
  }),
  revokeOldSecrets: route({
    method: 'POST', path: '/v1/pairings/revoke-old-secrets', scope: 'administer', summary: 'Let secrets of earlier releases let nobody in any more', response: z.looseObject({ count: z.number().int() }),
    handle: async ({ operations }) => ({ count: await operations.revokeOldSecrets() }),
  }),
  rotate: route({
    method: 'POST', path: '/v1/certificate/rotate', scope: 'administer', summary: 'Another key and certificate, announced to those who are paired', body: requestBodies.rotate, response: rotationShape,
    handle: ({ operations }, { body: { isNow } }) => operations.rotate(isNow ?? false),
  }),
} as const satisfies RouteTable;

/** A test beside the running original must not meet it: a network that leads somewhere is for who may fail it over. Fault OPERATOR_SCOPE. */
function ownNetwork<T extends { readonly network?: string | undefined }>(actor: Actor, body: T): T {
  const leadsOut = body.network !== undefined && body.network !== 'none' && body.network !== 'isolated';
  if (leadsOut && actor.kind === 'token' && actor.scope !== 'administer') throw new Fault('OPERATOR_SCOPE', `the token ${actor.name} is of scope ${actor.scope}, and a test on the network ${body.network} takes administer`, { token: actor.name, scope: actor.scope, needed: 'administer' });
  return body;
}

function groupDetail(operations: TargetOperations, nameOrId: string) {
  const report = operations.report();
  const group = report.groups.find((one) => one.name === nameOrId) ?? report.groups.find((one) => one.groupId === nameOrId);
  if (group === undefined) throw new Fault('GROUP_UNKNOWN', `no group named ${nameOrId} is here`, { group: nameOrId });
  const its = <T extends { readonly group: string }>(all: readonly T[] | undefined): T | null => all?.find((one) => one.group === group.name) ?? null;
  return {
    group, failover: its(report.failovers), test: its(report.tests), endedTest: its(report.endedTests),
    rehearsal: its(report.rehearsals), checks: its(report.checks), startCheck: its(report.startChecks),
  };
}
