/** The source's metrics, from its report and nothing else. Groups are told apart by name and by the target that they go to, for one that is on its way back goes to two. */
import type { GuestPhase, GuestReport, SourceReport } from '../../daemon/report.ts';
import { seconds, type MetricSheet } from './metric-sheet.ts';

const phases = ['connecting', 'first-sync', 'resync', 'protected', 'behind', 'held', 'yielding', 'relinquished', 'superseded', 'refused'] as const satisfies readonly GuestPhase[];

/** `guests`: those of the report, and its relays, that get samples of their own. */
export function addSourceMetrics(sheet: MetricSheet, report: SourceReport, guests: readonly GuestReport[]): void {
  addLinks(sheet, report);
  addProtection(sheet, guests);
  addCapture(sheet, guests);
}

function addLinks(sheet: MetricSheet, report: SourceReport): void {
  const up = sheet.gauge('link_up', 'Whether the connection to the target stands.');
  const since = sheet.gauge('link_state_start_timestamp_seconds', 'Since when the connection to the target has been up, or down.');
  const sent = sheet.counter('link_sent_bytes_total', 'Bytes of records sent to the target, compressed, since the start.');
  const reconnects = sheet.counter('link_reconnects_total', 'Times that the connection to the target was made anew.');
  const waiting = sheet.gauge('link_waiting_records', 'Records that wait for credit of the target or for room in the socket.');
  const unwritten = sheet.gauge('link_unwritten_bytes', 'Bytes handed to the socket that the kernel has not taken yet.');
  const ratio = sheet.gauge('link_compression_ratio', 'Bytes sent for each byte of data, as measured; 1 while nothing is compressed.');
  for (const { name: target, state, sinceMs, sentBytes, reconnects: count, queue, compression } of report.targets) {
    up({ target }, state === 'up');
    since({ target }, seconds(sinceMs));
    sent({ target }, sentBytes);
    reconnects({ target }, count);
    waiting({ target }, queue?.waitingRecords ?? 0);
    unwritten({ target }, queue?.unwrittenBytes ?? 0);
    ratio({ target }, compression.isOn ? compression.ratio : 1);
  }
}

function addProtection(sheet: MetricSheet, guests: readonly GuestReport[]): void {
  const objective = sheet.gauge('rpo_objective_seconds', 'The recovery point objective of the group.');
  const captured = sheet.gauge('rpo_captured_seconds', 'Age of the newest point that was cut.');
  const received = sheet.gauge('rpo_received_seconds', 'Age of the newest point that the target holds durably.');
  const applied = sheet.gauge('rpo_applied_seconds', 'Age of the newest point that the replica at the target has.');
  const newest = sheet.gauge('rpo_newest_point_seconds', 'Age of the newest point that can be restored: what would be lost now.');
  const exposure = sheet.histogram('rpo_exposure_seconds', 'Of each point, the age that the one before it had reached when it became durable: the worst that a loss could have cost.');
  const inPhase = sheet.gauge('guest_phase', 'Whether the group is in this phase.');
  const phaseSince = sheet.gauge('guest_phase_start_timestamp_seconds', 'Since when it has been in its phase.');
  const term = sheet.gauge('guest_term', 'The term of the group: how often it has failed over, and one.');
  const behind = sheet.gauge('behind_bytes', 'Bytes that are dirty and not acknowledged by the target.');
  const unacknowledged = sheet.gauge('unacknowledged_points', 'Points that were cut and that the target does not hold durably yet.');
  const unapplied = sheet.gauge('unapplied_points', 'Points that were cut and that the replica does not have yet.');
  const faultAt = sheet.gauge('last_fault_timestamp_seconds', 'When protecting the group failed last, by code.');
  const disk = sheet.gauge('disk_size_bytes', 'Size of the guest’s disk.');
  const marked = sheet.gauge('last_mark_timestamp_seconds', 'When the last point was cut that was asked for or meant to be application-consistent, by its kind.');
  const lease = sheet.gauge('lease_held', 'Whether the group’s lease at the witness is held.');
  for (const guest of guests) {
    const labels = { group: guest.name, target: guest.target };
    objective(labels, seconds(guest.rpoMs));
    captured(labels, seconds(guest.clocks.capturedMs));
    received(labels, seconds(guest.clocks.receivedMs));
    applied(labels, seconds(guest.clocks.appliedMs));
    newest(labels, seconds(guest.clocks.newestPointMs));
    exposure(labels, guest.exposure === undefined ? undefined : {
      buckets: guest.exposure.buckets.map(({ leMs, count }) => ({ le: leMs / 1000, count })), sum: guest.exposure.sumMs / 1000, count: guest.exposure.count,
    });
    for (const phase of phases) inPhase({ ...labels, phase }, guest.phase === phase);
    phaseSince(labels, seconds(guest.phaseSinceMs));
    term(labels, guest.term);
    behind(labels, guest.behindBytes);
    unacknowledged(labels, guest.waiting?.unacknowledgedPoints);
    unapplied(labels, guest.waiting?.unappliedPoints);
    if (guest.lastFault !== null) faultAt({ ...labels, code: guest.lastFault.code }, seconds(guest.lastFault.atMs));
    for (const { disk: index, name, sizeBytes } of guest.disks) disk({ ...labels, disk: String(index), device: name }, sizeBytes);
    if (guest.marked !== null) marked({ ...labels, kind: guest.marked.kind }, seconds(guest.marked.cutAtMs));
    if (guest.lease !== undefined) lease(labels, guest.lease.state === 'held');
  }
}

function addCapture(sheet: MetricSheet, guests: readonly GuestReport[]): void {
  const dirty = sheet.gauge('capture_dirty_bytes', 'Bytes that the guest has written since the last cut, about.');
  const log = sheet.gauge('capture_log_bytes', 'Bytes in the guest’s write logs that the target does not have yet, about.');
  const spool = sheet.gauge('spool_bytes', 'Bytes of the group in the spool.');
  const budget = sheet.gauge('spool_budget_bytes', 'What the spool may hold of all groups.');
  const inPath = sheet.gauge('capture_in_path_seconds', 'How long the last cycle’s job was in the guest’s path.');
  const cut = sheet.gauge('capture_cut_seconds', 'How long the last cut took.');
  const cycles = sheet.counter('capture_cycles_total', 'Cuts since the start.');
  const dropped = sheet.counter('capture_dropped_cycles_total', 'Cycles that came to nothing; what they held went into the next.');
  const logCuts = sheet.counter('capture_log_cuts_total', 'Cuts that were read from write logs.');
  const rounds = sheet.counter('capture_rounds_total', 'Parts of deltas that did not fit the spool in one.');
  const passes = sheet.counter('full_passes_total', 'First syncs and resyncs that were begun.');
  const done = sheet.gauge('full_pass_done_bytes', 'Of the first sync or resync under way: bytes read.');
  const total = sheet.gauge('full_pass_size_bytes', 'Of the first sync or resync under way: bytes to read.');
  const sent = sheet.gauge('full_pass_sent_bytes', 'Of the first sync or resync under way: bytes sent.');
  for (const { name, target, capture, pass, fullPasses } of guests) {
    const labels = { group: name, target };
    dirty(labels, capture?.dirtyBytes);
    log(labels, capture?.logBytes);
    spool(labels, capture?.spoolBytes);
    budget(labels, capture?.spoolBudgetBytes);
    inPath(labels, seconds(capture?.inPathMs));
    cut(labels, seconds(capture?.cutMs));
    cycles(labels, capture?.cycles);
    dropped(labels, capture?.droppedCycles);
    logCuts(labels, capture?.logCuts);
    rounds(labels, capture?.rounds);
    passes(labels, fullPasses);
    done(labels, pass?.doneBytes);
    total(labels, pass?.totalBytes);
    sent(labels, pass?.sentBytes);
  }
}
