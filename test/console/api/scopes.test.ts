import t, { type Test } from 'tap';
import { isWithinScope, scopes, type AnyRoute, type RouteTable } from '../../../console/api/route.ts';
import { sourceRoutes } from '../../../console/api/source-routes.ts';
import { targetRoutes } from '../../../console/api/target-routes.ts';
import { sourceActs, targetActs } from '../../../console/audited.ts';
import { openSourceApi, openTargetApi, type OpenApi } from './open-api.ts';

/** A path that fits, so that a request is refused for its scope and nothing else. */
function pathOf(route: AnyRoute): string {
  return route.path.replace(/\{(\w+)\}/g, (_whole, name: string) => ({ disk: '0', at: 'newest', groupId: 'ab'.repeat(16), code: 'INTERNAL' })[name] ?? 'web');
}

async function walk(t: Test, api: OpenApi, table: RouteTable): Promise<void> {
  const tokens = Object.fromEntries(await Promise.all(scopes.map(async (scope) => [scope, await api.token(scope)])));
  for (const [name, route] of Object.entries(table)) {
    const ask = (token: string | null) => api.ask(pathOf(route), { method: route.method, token, body: route.method === 'GET' ? undefined : { 'no such member': true } });
    const bare = await ask(null);
    t.equal(bare.status, 401, `${name} without a token`);
    t.equal(bare.headers['www-authenticate'], 'Bearer realm="afterimage"');
    for (const scope of scopes) {
      const isAllowed = route.isLocal !== true && isWithinScope(scope, route.scope);
      // What may stream is not read here: it does not end.
      if (isAllowed && route.stream === 'events') continue;
      const { status, json } = await ask(tokens[scope]!);
      if (isAllowed) t.not(status === 401 || status === 403, true, `${name} with ${scope}: ${status}`);
      else t.strictSame([status, json['code']], [403, 'OPERATOR_SCOPE'], `${name} with ${scope}`);
    }
  }
}

t.test('every route of a target takes its scope and no less', async (t) => {
  const api = await openTargetApi(t);
  await walk(t, api, targetRoutes);
});

t.test('every route of a source takes its scope and no less', async (t) => walk(t, await openSourceApi(t), sourceRoutes));

t.test('what each scope may is a decision', async (t) => {
  const may = (table: RouteTable) => Object.fromEntries(scopes.map((scope) => [scope, Object.entries(table).filter(([, route]) => route.scope === scope).map(([name, { isLocal }]) => `${name}${isLocal === true ? ' (local)' : ''}`)]));
  const service = { read: ['about', 'openapi', 'explainAll', 'explain', 'events', 'live', 'ticket', 'audit'], operate: ['testAlerts'], administer: ['listTokens', 'createToken', 'revokeToken'] };
  t.strictSame(may(targetRoutes), {
    read: [...service.read, 'report', 'groups', 'group', 'points', 'sealedPoints', 'timeline', 'describePoint', 'changes', 'plan', 'pairings'],
    // What guests show is theirs, as what their disks hold.
    operate: [...service.operate, 'holdPoint', 'verify', 'checkStart', 'testFailover', 'stopTest', 'rehearse', 'showGuests', 'showRehearsal'],
    administer: [...service.administer, 'lockPoint', 'forget', 'releasePoint', 'dismiss', 'failover', 'stopFailover', 'commitFailover', 'seedFrom', 'invite', 'revoke', 'revokeOldSecrets', 'rotate'],
  });
  t.strictSame(may(sourceRoutes), {
    read: [...service.read, 'report', 'identity (local)', 'guests', 'guest', 'pairings'],
    operate: [...service.operate, 'pause', 'resume', 'resync', 'mark', 'setCapture', 'setRate'],
    administer: [...service.administer, 'pair', 'revoke', 'rotate', 'protect', 'unprotect', 'setQmpPath', 'adopt (local)', 'surrender (local)', 'abandon (local)'],
  });
  for (const route of [...Object.values(targetRoutes), ...Object.values(sourceRoutes)] as AnyRoute[]) {
    if (route.scope === 'read') t.ok(route.method === 'GET' || route.isRead === true, `${route.path} is read and changes nothing`);
  }
});

t.test('what is read leaves no trace in the audit trail, which is kept for ever', async (t) => {
  for (const [table, acts] of [[targetRoutes, targetActs], [sourceRoutes, sourceActs]] as [RouteTable, object][]) {
    for (const [name, route] of Object.entries(table)) if (route.method === 'GET') t.notOk(Object.hasOwn(acts, name), name);
  }
});
