/** The API's own description, OpenAPI 3.1, made from the table that routes and the shapes that check. Pure. */
import { z } from 'zod';
import { problemMediaType, problemShape } from './problem.ts';
import { paramNames, type AnyRoute, type RouteTable } from './route.ts';

const schemaOf = (shape: z.ZodType, io: 'input' | 'output'): Record<string, unknown> => {
  // Within an OpenAPI document a schema's dialect is the document's.
  const { $schema: _, ...schema } = z.toJSONSchema(shape, { target: 'draft-2020-12', io, unrepresentable: 'any' });
  return schema;
};

/** `table`: of the role. */
export function openApiDocument(table: RouteTable, role: 'source' | 'target', version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const [name, route] of Object.entries(table)) (paths[route.path] ??= {})[route.method.toLowerCase()] = operationOf(name, route);
  return {
    openapi: '3.1.0',
    info: {
      title: `Afterimage, ${role}`, version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      description: `What an operator can see and ask of a ${role}. Over the control socket no token is needed; over the network each request carries one, of the scope that x-scope names or of one beyond it. Times are ms since 1970, durations ms, sizes bytes.`,
    },
    jsonSchemaDialect: 'https://json-schema.org/draft/2020-12/schema',
    servers: [{ url: '/' }],
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', description: 'made by `afterimage token create`' } },
      schemas: { Problem: schemaOf(problemShape, 'output') },
      responses: { Problem: { description: 'RFC 9457 problem details; `code` is a row of /v1/explain', content: { [problemMediaType]: { schema: { $ref: '#/components/schemas/Problem' } } } } },
      parameters: {
        IdempotencyKey: { name: 'Idempotency-Key', in: 'header', required: false, description: 'the same for all tries of one act, which is then done once; kept for a day', schema: { type: 'string', minLength: 1, maxLength: 255 } },
        LastEventId: { name: 'Last-Event-ID', in: 'header', required: false, description: 'the id of the last event that was seen', schema: { type: 'string' } },
      },
    },
  };
}

function operationOf(name: string, route: AnyRoute): Record<string, unknown> {
  const parameters = [
    ...parametersOf(route.params, 'path', paramNames(route.path)), ...parametersOf(route.query, 'query'),
    ...(route.method === 'GET' || route.isRead === true ? [] : [{ $ref: '#/components/parameters/IdempotencyKey' }]),
    ...(route.stream === 'events' ? [{ $ref: '#/components/parameters/LastEventId' }] : []),
  ];
  return {
    operationId: name, summary: route.summary, 'x-scope': route.scope, ...(route.isLocal === true ? { 'x-local': true } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === undefined ? {} : { requestBody: { required: !route.body.safeParse({}).success, content: { 'application/json': { schema: schemaOf(route.body, 'input') } } } }),
    responses: { ...answersOf(route), default: { $ref: '#/components/responses/Problem' } },
  };
}

function answersOf({ response, mediaType = 'application/json', stream }: AnyRoute): Record<string, unknown> {
  if (stream === 'live') return { 101: { description: 'text messages, each the whole report as JSON' } };
  if (response === undefined) return { 204: { description: 'Done' } };
  return { 200: { description: stream === 'events' ? 'events, each with an id; `missed` in place of those that are not known any more' : 'OK', content: { [mediaType]: { schema: schemaOf(response, 'output') } } } };
}

/** `names` in their order in the path; those of a query in the shape's. */
function parametersOf(shape: z.ZodType | undefined, place: 'path' | 'query', names?: readonly string[]): Record<string, unknown>[] {
  if (shape === undefined) return [];
  const { properties = {}, required = [] } = schemaOf(shape, 'input') as { properties?: Record<string, { description?: string }>; required?: string[] };
  return (names ?? Object.keys(properties)).map((name) => {
    const { description, ...schema } = properties[name] ?? {};
    return { name, in: place, required: place === 'path' || required.includes(name), ...(description === undefined ? {} : { description }), schema };
  });
}
