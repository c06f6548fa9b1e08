/** What both roles answer about their own certificate; for the document. */
import { z } from 'zod';
import { instant } from './point-shapes.ts';

export const rotationShape = z.looseObject({
  fingerprint: z.string(), expiresAtMs: instant, next: z.looseObject({ fingerprint: z.string() }).nullable(), awaited: z.array(z.string()).meta({ description: 'who has not heard of the next one yet' }),
});
