/**
 * What a source must know after a restart: who it is, which targets it is paired with, which guests it protects. One small
 * JSON file each, replaced whole (written aside, synced, renamed, folder synced), so that a crash leaves the old or the new.
 * Secrets are in here: the folder is 0700, the files 0600, and looser ones are refused.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, readJsonFolder, replaceJson, syncFolder } from '../host/node/json-file.ts';
import { preparePrivateFolder } from '../host/node/private-folder.ts';
import { groupGuestsMax } from '../journal/limits.ts';
import { pointKinds } from '../journal/point.ts';
import { safeName } from '../journal/wire.ts';

const sourceIdentity = z.object({ sourceId: z.string().regex(/^[0-9a-f]{32}$/) });

const pairedTarget = z.object({
  name: safeName,
  host: z.string().min(1),
  port: z.number().int().min(1).max(65535),
  fingerprint: z.string().min(1),
  /** Of a pairing of an earlier release, until the target has this source's certificate. */
  secretHex: z.string().regex(/^[0-9a-f]{64}$/).optional(),
  /** Of the certificate that the target has announced to show in place of the one before. */
  nextFingerprint: z.string().regex(/^[0-9a-f]{64}$/).optional(),
  /** Of this source's certificate, the newest that the target has pinned. */
  knownFingerprint: z.string().regex(/^[0-9a-f]{64}$/).optional(),
  pairedAtMs: z.number().optional(),
  lastUseAtMs: z.number().optional(),
  /** By a person, here. */
  revokedAtMs: z.number().optional(),
});

const guestImage = z.object({ disk: z.number().int(), path: z.string().min(1), format: z.string().min(1), sizeBytes: z.number().int(), writtenAtNs: z.string() });

const protectedGuest = z.object({
  name: safeName,
  groupId: z.string().regex(/^[0-9a-f]{32}$/),
  qmpPath: z.string().min(1),
  target: safeName,
  rpoMs: z.number().int().min(100).max(3_600_000),
  capture: z.enum(['cbt', 'writelog', 'auto']).default('cbt'),
  rateBytesPerSecond: z.number().int().nonnegative(),
  /** No full pass begins before the operator resumes it. */
  isPaused: z.boolean().default(false),
  storageDaemonDisks: z.array(z.object({ name: z.string().min(1), node: z.string().min(1) })).optional(),
  /** The log of a device of dm-log-writes, whose path is then `qmpPath`: there is no QEMU. */
  dmLogPath: z.string().min(1).optional(),
  /** The guests of a group of several, in the order in which their disks are numbered; `qmpPath` is then that of the first. */
  members: z.array(z.object({ name: safeName, qmpPath: z.string().min(1) })).min(2).max(groupGuestsMax).optional(),
  /** Of a group of several: which disks of theirs had which numbers (joint-capture.ts `JointLayout`). */
  layout: z.array(z.object({ guest: safeName, disks: z.array(z.string()) })).optional(),
  /** Its points are sent on to this target too: the way back to where it came from. */
  relay: z.object({ target: safeName, nbdPath: z.string().min(1), controlPath: z.string().min(1) }).optional(),
  /** Its images, as its QEMU named them last. */
  images: z.array(guestImage).optional(),
  /** It is live elsewhere since this term, by a failover that it was not asked about. */
  supersededBy: z.number().int().min(1).optional(),
  /** The term in which it came to this source; 1 for one that was protected here first. */
  term: z.number().int().min(1).optional(),
  /** The group's, as its target said last, where it is higher. */
  knownTerm: z.number().int().min(1).optional(),
  /** A planned failover that is under way, or that took the guest elsewhere. */
  handover: z.discriminatedUnion('state', [
    z.object({ state: z.literal('yielding'), untilMs: z.number() }),
    z.object({ state: z.literal('relinquished'), term: z.number().int().min(1), sourceId: z.string().min(1), point: z.object({ term: z.number().int(), point: z.number().int() }), images: z.array(guestImage) }),
  ]).optional(),
});

/** The last acknowledged point, so that a restarted source can tell how far behind it is while its target is away. */
const lastPoint = z.object({ term: z.number().int(), point: z.number().int(), cutAtMs: z.number(), kind: z.enum(pointKinds).optional(), appAtMs: z.number().optional() });

export type PairedTarget = z.infer<typeof pairedTarget>;
export type ProtectedGuest = z.infer<typeof protectedGuest>;
export type LastPoint = z.infer<typeof lastPoint>;

export class SourceState {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Fault FOLDER_UNSAFE. */
  async prepare(): Promise<void> {
    // Passed through, not listed: a spool in it is opened by a QEMU that may run as another user.
    await preparePrivateFolder(this.#folder, 0o711);
    for (const folder of ['targets', 'guests', 'points', 'relayed']) await preparePrivateFolder(join(this.#folder, folder));
  }

  /** The source's lasting id; drawn by `draw` when there is none yet. */
  async identity(draw: () => string): Promise<string> {
    const path = join(this.#folder, 'source.json');
    const known = await readJson(path, sourceIdentity);
    if (known !== null) return known.sourceId;
    const sourceId = draw();
    await replaceJson(path, { sourceId });
    return sourceId;
  }

  targets(): Promise<PairedTarget[]> {
    return readJsonFolder(join(this.#folder, 'targets'), pairedTarget);
  }

  putTarget(target: PairedTarget): Promise<void> {
    return replaceJson(join(this.#folder, 'targets', `${target.name}.json`), target);
  }

  guests(): Promise<ProtectedGuest[]> {
    return readJsonFolder(join(this.#folder, 'guests'), protectedGuest);
  }

  putGuest(guest: ProtectedGuest): Promise<void> {
    return replaceJson(join(this.#folder, 'guests', `${guest.name}.json`), guest);
  }

  async removeGuest(name: string): Promise<void> {
    await rm(join(this.#folder, 'guests', `${name}.json`), { force: true });
    await rm(join(this.#folder, 'points', `${name}.json`), { force: true });
    await rm(join(this.#folder, 'relayed', `${name}.json`), { force: true });
    await syncFolder(join(this.#folder, 'guests'));
  }

  /** `kind`: as its own target has it, or the one that its points are sent on to. */
  lastPoint(kind: 'points' | 'relayed', name: string): Promise<LastPoint | null> {
    return readJson(join(this.#folder, kind, `${name}.json`), lastPoint);
  }

  /** Not synced: after a power cut an older figure is shown, nothing more. */
  putLastPoint(kind: 'points' | 'relayed', name: string, point: LastPoint): Promise<void> {
    return replaceJson(join(this.#folder, kind, `${name}.json`), point, false);
  }
}
