/**
 * The limits of the format and of the wire, by name. FORMAT.md and PROTOCOL.md list them with these
 * names; a reader refuses what exceeds them before it allocates anything for it.
 */

/** Bytes of a record's fixed header (FORMAT.md, "Record"). */
export const recordHeaderBytes = 80;

/** Largest run of bytes in one data record, before compression. QEMU's mirror and backup jobs move at most 1 MiB at a time. */
export const runBytesMax = 1024 * 1024;

/** Largest payload of a record. Snappy never grows its input by more than 32 + n/6 bytes, but a record that grew is sent plain. */
export const payloadBytesMax = runBytesMax;

/** Largest record as it travels and as it lies in a segment. */
export const recordBytesMax = recordHeaderBytes + payloadBytesMax;

/** Largest run of a zero record: 1 GiB, so that a length always fits 32 bits. */
export const zeroRunBytesMax = 1024 * 1024 * 1024;

/** Largest JSON payload of an open, part or seal record. */
export const sealPayloadBytesMax = 64 * 1024;

/** A point's label, in UTF-16 code units. */
export const labelCharactersMax = 200;

/** Latest time that a point may say that it was cut at, ms since 1970: what has no date cannot be shown (ECMA-262, "Time Values and Time Range"). */
export const timeMsMax = 8_640_000_000_000_000;

/** Guests of one group. */
export const groupGuestsMax = 64;

/** Disks of one group; the record's disk field has 16 bits, QEMU guests rarely have more than 26. */
export const diskCountMax = 256;

/** Largest virtual size of a disk: 64 TiB, so that every offset is an exact JavaScript number. */
export const diskBytesMax = 64 * 1024 ** 4;

/** Every offset and every length of a record is a multiple of this, but for nothing: QEMU's own sector. */
export const sectorBytes = 512;

/** Largest binary WebSocket message: several records may share one. */
export const frameBytesMax = 4 * 1024 * 1024;

/** Largest text WebSocket message (JSON). A group's hardware with its firmware variables is the largest. */
export const controlBytesMax = 2 * 1024 * 1024;

/** How deep a group's recorded hardware is nested at most; QEMU's own answers are some six levels. */
export const hardwareDepthMax = 32;

/** Block of the hash comparison (resync, seed from an image). */
export const compareBlockBytes = 64 * 1024;

/** Where such a block differs, or is likely to: the page in which file systems write. The smallest block that may be asked about. */
export const comparePageBytes = 4096;

/** Blocks in one compare message. */
export const compareBlocksMax = 256;

/** Bytes that a source may have under way to a target beyond what the target has consumed. */
export const creditBytes = 32 * 1024 * 1024;

/** Size of a journal segment as it is preallocated. A record never spans two segments. */
export const segmentBytes = 64 * 1024 * 1024;

/** Records of one delta: its sequence numbers have 32 bits. At 64 KiB a run that is 256 TiB of changes. */
export const deltaRecordsMax = 0xffffffff;

/** Records of the points that a target applies at once: what it knows of each while it does (some 60 bytes) stays small. */
export const batchRecordsMax = 256 * 1024;

/** Points that a target applies at once: their facts, some 1.5 KB each at most, are the head of one history file. */
export const batchPointsMax = 4096;

/** Records of one delta that a target plans at once: above, it reads the delta once more for each part of the disks. */
export const planRecordsMax = 1024 * 1024;

/** Such a part is one or more of these. One alone has 2 Mi sectors: some 90 MiB of plan at worst. */
export const planRegionBytes = 1024 * 1024 * 1024;

/** Bits of what an unsealed delta has written, in pages of 8 KiB for 4 GiB of disk: 256 MiB for 128 TiB. Above, a page that is not there counts as written whole. */
export const touchedPagesMax = 32 * 1024;

/** How long a point may be locked, ms. Nobody can take a lock back: a longer one is a mistake. */
export const lockMsMax = 3660 * 86_400_000;
