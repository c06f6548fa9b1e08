/** The keys of both config files: each with what its own refusal says that it expects, and the samples, which are tested files. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { sourceShape, targetShape } from '../../console/config/schema.ts';
import { madeFrom, table } from './pages.ts';

/** What we read of a schema's definition (zod 4's `def`). */
interface Definition { readonly type: string; readonly shape?: Readonly<Record<string, z.ZodType>>; readonly innerType?: z.ZodType; readonly valueType?: z.ZodType; readonly element?: z.ZodType; readonly in?: z.ZodType; readonly out?: z.ZodType }
interface Key { readonly path: string; readonly isNeeded: boolean; readonly expected: string }

/** Refused by every key, whatever it takes. */
const unwanted = Object.freeze({ '\u0000': 0 });

export async function configPage(root: string): Promise<string> {
  const role = async (name: 'source' | 'target', shape: z.ZodType): Promise<string[]> => [
    `## ${name}.yaml`, '', table(['key', 'expected', ''], keysOf(shape).map(({ path, expected, isNeeded }) => [`\`${path}\``, expected, isNeeded ? 'needed' : ''])), '',
    'With everything in it:', '', '```yaml', (await readFile(join(root, 'console/config/samples', `${name}.yaml`), 'utf8')).trimEnd(), '```', '',
  ];
  return [
    '# Configuration', '', madeFrom('the shapes that check the files'), '',
    'One YAML file for each role. Unknown keys are refused, all problems at once, each with line and column; `afterimage doctor` reads the file and looks at what it names.',
    'A key that is *needed* is so where the section above it is there. `NAME` stands for names of yours.', '',
    ...await role('source', sourceShape), ...await role('target', targetShape),
  ].join('\n');
}

/** Leaves alone, in the order of the shape. */
export function keysOf(schema: z.ZodType, path = '', isOptional = false): Key[] {
  const { type, shape, innerType, valueType, element, in: inner, out } = schema.def as unknown as Definition;
  const below = (key: string): string => (path === '' ? key : `${path}.${key}`);
  switch (type) {
    case 'object': return Object.entries(shape!).flatMap(([key, one]) => keysOf(one, below(key)));
    case 'record': return keysOf(valueType!, below('NAME'));
    case 'array': return keysOf(element!, `${path}[]`);
    case 'optional': return keysOf(innerType!, path, true);
    case 'pipe': {
      const side = [inner!, out!].find((one) => ['object', 'record', 'array', 'optional', 'pipe'].includes((one.def as unknown as Definition).type));
      return side === undefined ? [leaf(schema, path, isOptional)] : keysOf(side, path, isOptional);
    }
    default: return [leaf(schema, path, isOptional)];
  }
}

function leaf(schema: z.ZodType, path: string, isOptional: boolean): Key {
  const message = schema.safeParse(unwanted).error?.issues[0]?.message ?? '';
  return { path, isNeeded: !isOptional && !schema.safeParse(undefined).success, expected: message.replace(/^expected /, '').replace(/, found .*$/s, '') };
}
