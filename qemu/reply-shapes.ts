/**
 * What must hold of QEMU's answers for those who read them: the members that they use, where they are there, are of the type that they
 * take them for. A QEMU that its guest has broken out into answers as it likes; without this an answer of another shape would be taken for
 * a bug of ours, and end the protection of all other guests too. Members that nobody reads are not looked at.
 */
import { z } from 'zod';

const text = z.string();
const number = z.number();
const flag = z.boolean();
const named = z.looseObject({ name: text });
const image = z.looseObject({
  filename: text.optional(), 'virtual-size': number.optional(), 'backing-filename': text.optional(),
  'format-specific': z.looseObject({ type: text.optional(), data: z.looseObject({}).optional() }).optional(),
});

const block = z.looseObject({
  device: text, qdev: text.optional(), removable: flag.optional(),
  inserted: z.looseObject({ 'node-name': text.optional(), ro: flag.optional(), image: image.optional() }).optional(),
});
const bitmap = z.looseObject({ name: text.optional(), count: number, granularity: number.optional(), recording: flag.optional(), busy: flag.optional(), inconsistent: flag.optional() });
const node = z.looseObject({
  'node-name': text.optional(), drv: text, ro: flag.optional(), file: text.optional(), backing_file: text.optional(), image: image.extend({ 'virtual-size': number }).optional(), 'dirty-bitmaps': z.array(bitmap).optional(),
});
const status = z.looseObject({ status: text });
const schemaEntry = z.looseObject({
  name: text, 'meta-type': text.optional(), 'arg-type': text.optional(), tag: text.optional(), members: z.array(z.looseObject({ name: text.optional(), type: text.optional() })).optional(), values: z.array(text).optional(),
});

const shapes: Readonly<Record<string, z.ZodType>> = {
  'query-block': z.array(block),
  'query-named-block-nodes': z.array(node),
  'x-debug-query-block-graph': z.looseObject({
    nodes: z.array(z.looseObject({ id: number, type: text, name: text })), edges: z.array(z.looseObject({ parent: number, child: number, name: text })),
  }),
  'query-version': z.looseObject({ qemu: z.looseObject({ major: number, minor: number, micro: number }) }),
  'query-status': status,
  'query-jobs': z.array(z.looseObject({ id: text, type: text.optional(), status: text, 'current-progress': number.optional(), 'total-progress': number.optional(), error: text.optional() })),
  'query-block-jobs': z.array(z.looseObject({ device: text, len: number, offset: number })),
  'query-block-exports': z.array(z.looseObject({ id: text })),
  'query-blockstats': z.array(z.looseObject({ qdev: text.optional(), stats: z.looseObject({ wr_bytes: number, wr_operations: number.optional() }) })),
  'query-migrate': z.looseObject({ status: text.optional() }),
  'query-commands': z.array(named),
  'query-qmp-schema': z.array(schemaEntry),
  'query-machines': z.array(z.looseObject({ name: text, alias: text.optional(), 'cpu-max': number.optional() })),
  'query-cpu-definitions': z.array(z.looseObject({ name: text, 'alias-of': text.optional(), 'unavailable-features': z.array(text).optional() })),
  'query-cpu-model-expansion': z.looseObject({ model: z.looseObject({ props: z.looseObject({}).optional() }) }),
  'query-cpus-fast': z.array(z.looseObject({ 'qom-path': text, props: z.looseObject({}).optional() })),
  'query-iothreads': z.array(z.looseObject({ id: text })),
  'query-memdev': z.array(z.unknown()),
  'query-memory-size-summary': z.looseObject({ 'base-memory': number, 'plugged-memory': number.optional() }),
  'query-kvm': z.looseObject({ enabled: flag }),
  'query-name': z.looseObject({ name: text.optional() }),
  'query-uuid': z.looseObject({ UUID: text }),
  'query-target': z.looseObject({ arch: text }),
  'qom-list': z.array(z.looseObject({ name: text, type: text })),
  'qom-list-types': z.array(named),
  'device-list-properties': z.array(named),
};

const textProperties: ReadonlySet<unknown> = new Set(['type', 'firmware', 'kernel', 'initrd', 'append', 'parent_bus']);
const topology = z.looseObject(Object.fromEntries(['maxcpus', 'sockets', 'dies', 'clusters', 'cores', 'threads'].map((name) => [name, number.optional()])));

/** Whether the answer to the command is what its readers take it for; true where they take nothing for granted. */
export function isOfShape(command: string, args: Readonly<Record<string, unknown>> | undefined, answer: unknown): boolean {
  const shape = command === 'qom-get' ? propertyShape(args?.['property']) : shapes[command];
  return shape === undefined || shape.safeParse(answer).success;
}

function propertyShape(property: unknown): z.ZodType | undefined {
  if (textProperties.has(property)) return text;
  if (property === 'smp') return topology;
  return property === 'boot' || property === 'memory' || property === 'rtc-time' ? z.looseObject({}) : undefined;
}
