/**
 * Files of the dashboard, served as they lie in a folder: with `.br` or `.gz` beside them where the client takes it. Names with a
 * hash in them never change and are kept by browsers for good; all others are asked for again with their ETag.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import sirv from 'sirv';

/** `app-1a2b3c4d.js`: what bundlers write. */
const hashedName = /[-.][A-Za-z0-9_-]{8,}\.(?:js|css|woff2|svg|png)$/;

/** Answers GETs for which there is a file; null when there is no such folder. It is read once, at the start. */
export function openAssets(folder: string, headers: Readonly<Record<string, string>>): ((request: FastifyRequest, reply: FastifyReply, onNone: () => void) => void) | null {
  if (!existsSync(join(folder, 'index.html'))) return null;
  const serve = sirv(folder, {
    etag: true, brotli: true, gzip: true, dotfiles: false,
    setHeaders: (response, path) => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      response.setHeader('cache-control', hashedName.test(path) ? 'public, max-age=31536000, immutable' : 'no-cache');
    },
  });
  return (request, reply, onNone) => {
    let isFound = true;
    serve(request.raw, reply.raw, () => { isFound = false; });
    if (isFound) reply.hijack();
    else onNone();
  };
}

/** What is no route of the API: a file, or `onNone`. */
export function mountAssets(app: FastifyInstance, folder: string | null, headers: Readonly<Record<string, string>>, onNone: (request: FastifyRequest, reply: FastifyReply) => void): void {
  const serve = folder === null ? null : openAssets(folder, headers);
  app.setNotFoundHandler((request, reply) => {
    const isFile = serve !== null && (request.method === 'GET' || request.method === 'HEAD') && !request.url.startsWith('/v1');
    if (!isFile) return onNone(request, reply);
    serve(request, reply, () => onNone(request, reply));
  });
}
