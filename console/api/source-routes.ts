/** The source's routes: one entry each, from which all else comes (route.ts). */
import { z } from 'zod';
import type { Neighbour, SourceOperations } from '../../daemon/operations.ts';
import { Fault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import { requestBodies } from '../control-api.ts';
import { routeOf, type Actor, type RouteTable } from './route.ts';
import { serviceRoutes } from './service-routes.ts';
import { rotationShape } from './shapes/certificate-shapes.ts';
import { guestShape, markedPointShape, pairedTargetShape, protectedShape, sourceReportShape, surrenderedShape } from './shapes/source-shapes.ts';

const route = routeOf<SourceOperations>();

const ofGuest = z.strictObject({ guest: safeName });

/** Nothing: whoever asks has all that the daemon has. */
function neighbourOf(actor: Actor): [] | [Neighbour] {
  return actor.kind === 'target' ? [{ uid: actor.uid, targetName: actor.name }] : [];
}

export const sourceRoutes = {
  ...serviceRoutes,
  report: route({
    method: 'GET', path: '/v1/report', scope: 'read', summary: 'All that the source knows of itself', response: sourceReportShape,
    handle: ({ operations }) => operations.report(),
  }),
  identity: route({
    method: 'GET', path: '/v1/identity', scope: 'read', isLocal: true, isForTarget: true, summary: 'Who this host’s source is', response: z.looseObject({ sourceId: z.string() }),
    handle: ({ operations }) => ({ sourceId: operations.report().sourceId }),
  }),
  guests: route({
    method: 'GET', path: '/v1/guests', scope: 'read', summary: 'The guests that are protected here', response: z.looseObject({ items: z.array(guestShape) }),
    handle: ({ operations }) => ({ items: operations.report().guests }),
  }),
  guest: route({
    method: 'GET', path: '/v1/guests/{guest}', scope: 'read', summary: 'One of them', params: ofGuest, response: guestShape,
    handle: ({ operations }, { params }) => {
      const found = operations.report().guests.find(({ name, groupId }) => name === params.guest || groupId === params.guest);
      if (found === undefined) throw new Fault('GROUP_UNKNOWN', `no guest named ${params.guest} is protected here`, { group: params.guest });
      return found;
    },
  }),
  pair: route({
    method: 'POST', path: '/v1/targets', scope: 'administer', summary: 'Pair with the target that made a token', body: requestBodies.pair, response: pairedTargetShape,
    handle: ({ operations }, { body: { token } }) => operations.pair(token),
  }),
  pairings: route({
    method: 'GET', path: '/v1/pairings', scope: 'read', summary: 'The targets that this source is paired with, and by which certificates', response: z.looseObject({ certificate: rotationShape, targets: z.array(z.looseObject({ name: z.string(), fingerprint: z.string() })) }),
    handle: ({ operations }) => operations.pairings(),
  }),
  revoke: route({
    method: 'POST', path: '/v1/pairings/revoke', scope: 'administer', summary: 'End the pairing with a target, at once', body: requestBodies.revoke, response: z.looseObject({ name: z.string() }),
    handle: ({ operations }, { body: { which } }) => operations.revoke(which),
  }),
  rotate: route({
    method: 'POST', path: '/v1/certificate/rotate', scope: 'administer', summary: 'Another key and certificate, announced to the targets', body: requestBodies.rotate, response: rotationShape,
    handle: ({ operations }, { body: { isNow } }) => operations.rotate(isNow ?? false),
  }),
  protect: route({
    method: 'POST', path: '/v1/guests', scope: 'administer', summary: 'Protect a guest, or a group of several', body: requestBodies.protect, response: protectedShape,
    handle: ({ operations }, { body }) => operations.protect(body),
  }),
  unprotect: route({
    method: 'DELETE', path: '/v1/guests/{guest}', scope: 'administer', summary: 'End its protection', params: ofGuest, query: z.strictObject({ forget: z.stringbool({ truthy: ['true'], falsy: ['false'] }).optional().meta({ description: 'the target removes its replica and points as well' }) }),
    handle: ({ operations }, { params: { guest }, query: { forget } }) => operations.unprotect(guest, forget ?? false),
  }),
  pause: route({
    method: 'POST', path: '/v1/guests/{guest}/pause', scope: 'operate', summary: 'Hold a first sync or resync', params: ofGuest,
    handle: ({ operations }, { params: { guest } }) => operations.pause(guest),
  }),
  resume: route({
    method: 'POST', path: '/v1/guests/{guest}/resume', scope: 'operate', summary: 'Let it go on', params: ofGuest,
    handle: ({ operations }, { params: { guest } }) => operations.resume(guest),
  }),
  resync: route({
    method: 'POST', path: '/v1/guests/{guest}/resync', scope: 'operate', summary: 'Compare the whole guest with its replica', params: ofGuest,
    handle: ({ operations }, { params: { guest } }) => operations.resync(guest),
  }),
  mark: route({
    method: 'POST', path: '/v1/guests/{guest}/marks', scope: 'operate', summary: 'Take a point now, and wait until the target has it', params: ofGuest, body: requestBodies.mark.omit({ name: true }), response: markedPointShape,
    handle: ({ operations }, { params: { guest }, body }) => operations.mark({ name: guest, ...body }),
  }),
  setCapture: route({
    method: 'PUT', path: '/v1/guests/{guest}/capture', scope: 'operate', summary: 'How its changes are followed', params: ofGuest, body: requestBodies.capture.omit({ name: true }),
    handle: ({ operations }, { params: { guest }, body: { capture } }) => operations.setCapture(guest, capture),
  }),
  setRate: route({
    method: 'PUT', path: '/v1/guests/{guest}/rate', scope: 'operate', summary: 'Limit of its first sync and resyncs', params: ofGuest, body: requestBodies.rate.omit({ name: true }),
    handle: ({ operations }, { params: { guest }, body: { rateBytesPerSecond } }) => operations.setRate(guest, rateBytesPerSecond),
  }),
  setQmpPath: route({
    method: 'PUT', path: '/v1/guests/{guest}/qmp-path', scope: 'administer', summary: 'Where its QMP socket is now', params: ofGuest, body: requestBodies.qmpPath.omit({ name: true }),
    handle: ({ operations }, { params: { guest }, body: { qmpPath } }) => operations.setQmpPath(guest, qmpPath),
  }),
  adopt: route({
    method: 'POST', path: '/v1/adoptions', scope: 'administer', isLocal: true, isForTarget: true, summary: 'Follow a guest that this host’s target has just started', body: requestBodies.adopt,
    handle: ({ operations, actor }, { body }) => operations.adopt(body, ...neighbourOf(actor)),
  }),
  surrender: route({
    method: 'POST', path: '/v1/groups/{groupId}/surrender', scope: 'administer', isLocal: true, isForTarget: true, summary: 'What this host has of a guest that is live elsewhere', params: requestBodies.abandon, body: requestBodies.surrender.omit({ groupId: true }), response: surrenderedShape,
    handle: async ({ operations }, { params: { groupId }, body: { term } }) => ({ guest: await operations.surrender(groupId, term) }),
  }),
  abandon: route({
    method: 'POST', path: '/v1/groups/{groupId}/abandon', scope: 'administer', isLocal: true, isForTarget: true, summary: 'Follow a guest no more whose QEMU is gone', params: requestBodies.abandon,
    handle: ({ operations, actor }, { params: { groupId } }) => operations.abandon(groupId, ...neighbourOf(actor)),
  }),
} as const satisfies RouteTable;
