/**
 * Control messages of the wire (PROTOCOL.md). Text WebSocket messages are one JSON object each, of the shapes
 * below; binary messages are one or more whole records, back to back, exactly as the journal stores them.
 * This file knows the shapes and their limits, and no socket.
 */
import { z } from 'zod';
import { compareBlocksMax, controlBytesMax, diskBytesMax, diskCountMax, hardwareDepthMax, sectorBytes, timeMsMax } from './limits.ts';

/** The newest version that this release speaks. */
export const protocolVersion = 1;
/** All that it speaks: a release speaks those of the release one minor version before it as well (PROTOCOL.md, "Versioning"). */
export const protocolVersions: readonly number[] = [protocolVersion];
export const protocolPath = '/afterimage/v1';
/** Names the code in the 403 by which a target turns a certificate away before the upgrade. */
export const refusalHeader = 'x-afterimage-refused';

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));
const groupId = hex(16);
/** Names travel into paths and terminals: letters, digits, dot, dash, underscore; not starting with a dot or dash. */
export const safeName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/);
const term = count.min(1).max(0xffffffff);
const pointId = z.object({ term, point: count });
const text = z.string().max(2000);

export const wireDisk = z.object({
  disk: z.number().int().min(0).max(diskCountMax - 1),
  /** What the source calls the disk: device id or qdev path. */
  name: z.string().min(1).max(255),
  sizeBytes: count.max(diskBytesMax).multipleOf(sectorBytes),
});

/** What it takes to start the guest elsewhere, as QEMU reported it. The shape belongs to qemu/hardware.ts; the wire carries it whole. */
export const wireHardware = z.record(z.string(), z.unknown()).refine(isKeepable, { error: 'nested deeper than it can be kept, or longer' });

/** Tells one planned failover from another. */
const handoverId = hex(8);

/** DER of a certificate, and a signature: those of long RSA keys with a name or two are below half of it. */
const certificate = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/).max(16_384);
const signature = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/).max(4096);

const sourceShapes = {
  /** First message of a source. `nonce`: 32 random bytes for the target's own proof. */
  hello: z.object({ t: z.literal('hello'), versions: z.array(z.number().int()).min(1).max(16), sourceId: hex(16), sourceName: safeName, nonce: hex(32) }),
  /** HMAC-SHA-256(secret, "source" ‖ target's nonce ‖ source's nonce ‖ target's fingerprint ‖ source's), hex. Without: its certificate is its proof. */
  auth: z.object({ t: z.literal('auth'), mac: hex(32).optional() }),
  /** Names a group that this source protects; answered by `group` or `refused`. Sent after each connect, and again when facts change. */
  announce: z.object({
    t: z.literal('announce'), group: groupId, name: safeName, term, rpoMs: count, disks: z.array(wireDisk).min(1).max(diskCountMax), hardware: wireHardware,
  }),
  /** Starts or resumes a first sync. `compare`: blocks will be compared before they are sent. Answered by `group`. */
  seedBegin: z.object({ t: z.literal('seedBegin'), group: groupId, deltaId: hex(8) }),
  /** All of the first sync has been sent; answered by `seeded` once the replica is durable. */
  seedEnd: z.object({ t: z.literal('seedEnd'), group: groupId }),
  /** Hashes (BLAKE3, 32 bytes each, base64 of all of them joined) of consecutive blocks at `offset`; the last may be shorter. Answered by `differs`. */
  compare: z.object({
    t: z.literal('compare'), group: groupId, id: count, disk: z.number().int().min(0).max(diskCountMax - 1), offset: count.multipleOf(sectorBytes), length: count.min(1),
    blockBytes: z.number().int().min(4096).max(1024 * 1024), hashes: z.string().max(compareBlocksMax * 44 + 8),
  }),
  /** Forgets the group at the target (unprotect --forget). Answered by `forgotten`. */
  forget: z.object({ t: z.literal('forget'), group: groupId }),
  /** To `yield`: the guest stands still since `stoppedAtMs` (source's wall clock), and `point`, which was acknowledged, is all that its disks hold. */
  yielded: z.object({ t: z.literal('yielded'), group: groupId, id: handoverId, point: pointId, stoppedAtMs: count.refine((ms) => ms <= timeMsMax) }),
  /** To `yield` or `recall`: the guest runs at the source, for this reason. */
  kept: z.object({ t: z.literal('kept'), group: groupId, id: handoverId, code: z.string().max(40), message: text }),
  /** To `takeOver`, and instead of an announcement ever after: the source has noted durably that the guest is live elsewhere, in `term`. */
  relinquished: z.object({ t: z.literal('relinquished'), group: groupId, term }),
  /** To the target that the guest was protected to: it is live elsewhere since `term`, and belongs to another source from there on. Answered by `group`. */
  handedOver: z.object({ t: z.literal('handedOver'), group: groupId, term, sourceId: hex(16) }),
  /** The source will show this certificate, whose key signed this. Answered by `renewed`. */
  renew: z.object({ t: z.literal('renew'), certificate, signature }),
  /** This certificate of the source is not to be taken any more; another of its is pinned. */
  retire: z.object({ t: z.literal('retire'), fingerprint: hex(32) }),
  /** To `renewal`: the target may show that certificate from now on. */
  renewalNoted: z.object({ t: z.literal('renewalNoted'), fingerprint: hex(32) }),
} as const;

const targetShapes = {
  /** Answer to hello. `certificate`: fingerprint of the one that the source showed, which proofs bind then. */
  challenge: z.object({ t: z.literal('challenge'), version: z.number().int(), targetId: hex(16), targetName: safeName, nonce: hex(32), certificate: hex(32).optional() }),
  /**
   * The source has proved itself. `mac`: the target's proof, HMAC-SHA-256(secret, "target" ‖ source's nonce ‖ target's nonce ‖ target's fingerprint ‖ source's).
   * `paired`: fingerprint of the source's certificate, which is pinned durably: no secret is needed any more.
   */
  welcome: z.object({ t: z.literal('welcome'), mac: hex(32).optional(), creditBytes: count, paired: hex(32).optional() }),
  /** What the target holds of a group. `newest`: newest sealed durable point. `open`: an unsealed delta with durable parts, to be continued, never reopened. */
  group: z.object({
    t: z.literal('group'), group: groupId, term, newest: pointId.nullable(), applied: pointId.nullable(),
    open: z.object({ point: count, deltaId: hex(8), nextSequence: count, parts: count }).nullable(),
    /** none: no replica yet. partial: a first sync was begun, or an image was put there to compare with. done: the replica is whole but may lack the first point. */
    seed: z.enum(['none', 'partial', 'done']),
    /** With `partial`: the images are those of this point, or differ from it where a later point does (a guest's own old disks). */
    images: pointId.optional(),
  }),
  /** More bytes of binary messages that the source may send. */
  credit: z.object({ t: z.literal('credit'), bytes: count }),
  /** Durable. With `part`: that part of the unsealed delta of `point`; without: the sealed point. */
  ack: z.object({ t: z.literal('ack'), group: groupId, term, point: count, part: count.optional() }),
  applied: z.object({ t: z.literal('applied'), group: groupId, term, point: count }),
  seeded: z.object({ t: z.literal('seeded'), group: groupId }),
  /** `bits`: one character per block, '1' where the target's differs. */
  differs: z.object({ t: z.literal('differs'), group: groupId, id: count, bits: z.string().regex(/^[01]*$/).max(compareBlocksMax) }),
  /** The target cannot take more for now (full disk); nothing is lost. `released` ends it; what was unacknowledged is sent again after a new `announce`. */
  held: z.object({ t: z.literal('held'), group: groupId, code: z.string().max(40), message: text }),
  released: z.object({ t: z.literal('released'), group: groupId }),
  forgotten: z.object({ t: z.literal('forgotten'), group: groupId }),
  /** A planned failover: the source is to shut its guest down within `shutdownMs`, else do as `onLimit` says, and to send what is left. Answered by `yielded` or `kept`. */
  yield: z.object({ t: z.literal('yield'), group: groupId, id: handoverId, shutdownMs: count.min(1000).max(86_400_000), onLimit: z.enum(['stop', 'give-up']) }),
  /** The guest stands ready at the target, in `term`, where `sourceId` will protect it, and runs when the source has let go of it. Answered by `relinquished`. */
  takeOver: z.object({ t: z.literal('takeOver'), group: groupId, id: handoverId, term, sourceId: hex(16) }),
  /** It came to nothing before `takeOver`: the source starts its guest again. Answered by `kept`. */
  recall: z.object({ t: z.literal('recall'), group: groupId, id: handoverId }),
  /** A named error. With `group`: only that group is refused, the connection stays. Without: the target closes. `term`: the group's term at the target. */
  refused: z.object({ t: z.literal('refused'), code: z.string().max(40), message: text, group: groupId.optional(), term: term.optional() }),
  /** To `renew`: it is pinned durably, beside the one in use. With `code`: it is not, for that reason, and the connection goes on. */
  renewed: z.object({ t: z.literal('renewed'), fingerprint: hex(32), code: z.string().max(40).optional(), message: text.optional() }),
  /** The target will show this certificate, whose key signed this. Answered by `renewalNoted`. */
  renewal: z.object({ t: z.literal('renewal'), certificate, signature }),
} as const;

export const sourceMessage = z.discriminatedUnion('t', [
  sourceShapes.hello, sourceShapes.auth, sourceShapes.announce, sourceShapes.seedBegin, sourceShapes.seedEnd, sourceShapes.compare, sourceShapes.forget,
  sourceShapes.yielded, sourceShapes.kept, sourceShapes.relinquished, sourceShapes.handedOver, sourceShapes.renew, sourceShapes.retire, sourceShapes.renewalNoted,
]);
export const targetMessage = z.discriminatedUnion('t', [
  targetShapes.challenge, targetShapes.welcome, targetShapes.group, targetShapes.credit, targetShapes.ack, targetShapes.applied, targetShapes.seeded,
  targetShapes.differs, targetShapes.held, targetShapes.released, targetShapes.forgotten, targetShapes.refused, targetShapes.yield, targetShapes.takeOver, targetShapes.recall,
  targetShapes.renewed, targetShapes.renewal,
]);
export type SourceMessage = z.infer<typeof sourceMessage>;
export type TargetMessage = z.infer<typeof targetMessage>;
/** What a target asks of a source for a planned failover, and what it is answered. */
export type HandoverOrder = Extract<TargetMessage, { readonly t: 'yield' | 'takeOver' | 'recall' }>;
export type HandoverAnswer = Extract<SourceMessage, { readonly t: 'yielded' | 'kept' | 'relinquished' }>;
export type WireDisk = z.infer<typeof wireDisk>;
export type WireHardware = z.infer<typeof wireHardware>;
export type GroupAnnouncement = Omit<z.infer<typeof sourceShapes.announce>, 't'>;
export type GroupHolding = Omit<z.infer<typeof targetShapes.group>, 't'>;

/** The target writes it down as JSON and reads it again: nested so deep that no JSON can be made of it, or with numbers that take far more room than they came in, it would be the end of its group. */
function isKeepable(hardware: Readonly<Record<string, unknown>>): boolean {
  let level: readonly unknown[] = [hardware];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > hardwareDepthMax) return false;
    level = level.flatMap((value) => (typeof value === 'object' && value !== null ? Object.values(value) : []));
  }
  return JSON.stringify(hardware).length <= controlBytesMax;
}

/** Undefined for anything that is not a message of the schema within its size; the caller closes with WIRE_GARBAGE. */
export function decodeMessage<T>(schema: z.ZodType<T>, textMessage: string): T | undefined {
  if (textMessage.length > controlBytesMax) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(textMessage);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  const parsed = schema.safeParse(value);
  return parsed.success ? parsed.data : undefined;
}

/** The highest version that both speak; null when there is none. Either list may be in any order and name versions that nobody here knows. */
export function commonVersion(theirs: readonly number[], ours: readonly number[] = protocolVersions): number | null {
  const common = ours.filter((version) => theirs.includes(version));
  return common.length === 0 ? null : Math.max(...common);
}
