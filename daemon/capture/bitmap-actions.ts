/**
 * What we do to bitmaps, as actions of one QMP `transaction`, so that all disks change together or none. Pure. Under I/O threads a
 * transaction holds no disk still for bitmap actions alone; each sequence here is right all the same, because a bitmap that is
 * added records from then on, and what is merged into it after that can only be more.
 */
import { bitmapGranularity } from './reconcile-plan.ts';

export interface BitmapAction { readonly type: string; readonly data: Readonly<Record<string, unknown>> }

/** `isPersistent`: it outlives QEMU, when that ends well. */
export function addBitmap(node: string, name: string, isPersistent: boolean): BitmapAction {
  return { type: 'block-dirty-bitmap-add', data: { node, name, granularity: bitmapGranularity, ...(isPersistent ? { persistent: true } : {}) } };
}

export function mergeBitmap(node: string, target: string, source: string): BitmapAction {
  return { type: 'block-dirty-bitmap-merge', data: { node, target, bitmaps: [source] } };
}

export function removeBitmap(node: string, name: string): BitmapAction {
  return { type: 'block-dirty-bitmap-remove', data: { node, name } };
}

/** QEMU cannot rename a bitmap, nor make it persistent afterwards: it becomes another one. */
export function replaceBitmap(node: string, from: string, to: string, isPersistent: boolean): BitmapAction[] {
  return [addBitmap(node, to, isPersistent), mergeBitmap(node, to, from), removeBitmap(node, from)];
}
