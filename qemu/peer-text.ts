/**
 * Text of a value that a peer sent where text should be. A QEMU may be in a guest's hands, and an agent always is: `String()` of an
 * object calls members that came with it, and `JSON.stringify` descends as deep as it was nested; either would throw.
 */
export function textOf(value: unknown): string {
  switch (typeof value) {
    case 'string': return value;
    case 'number': case 'boolean': return String(value);
    case 'object': return value === null ? 'null' : Array.isArray(value) ? 'a list' : 'an object';
    default: return 'nothing';
  }
}
