/** The target's metrics, from its report and nothing else. */
import type { TargetReport } from '../../replica-target/report.ts';
import type { GroupState, GroupStoreReport } from '../../replica-target/store/store.ts';
import { seconds, type MetricSheet } from './metric-sheet.ts';

const states = ['protected', 'failed-over', 'committed'] as const satisfies readonly GroupState[];
const verdicts = ['fine', 'warning', 'refused'] as const;

/** `groups`: those of the report that get samples of their own. */
export function addTargetMetrics(sheet: MetricSheet, report: TargetReport, groups: readonly GroupStoreReport[]): void {
  addDoor(sheet, report);
  addGroups(sheet, report, groups);
  addHistory(sheet, groups);
  addReadiness(sheet, report, new Set(groups.map(({ name }) => name)));
}

function addDoor(sheet: MetricSheet, { sources, refusals, nbd, volume, certificateExpiresAtMs }: TargetReport): void {
  const connected = sheet.gauge('source_connected_start_timestamp_seconds', 'Since when the source has been connected; absent while it is not.');
  const received = sheet.counter('source_received_bytes_total', 'Bytes received from the source over the connection that stands.');
  for (const { name: source, sinceMs, receivedBytes } of sources) {
    connected({ source }, seconds(sinceMs));
    received({ source }, receivedBytes);
  }
  const refused = sheet.counter('refusals_total', 'What was refused on the wire since the start, by code.');
  for (const [code, count] of Object.entries(refusals)) refused({ code }, count);
  sheet.gauge('nbd_connections', 'Connections that read points over NBD.')({}, Object.values(nbd.clients).reduce((sum, count) => sum + count, 0));
  sheet.gauge('nbd_views', 'Points that are open to be read.')({}, nbd.viewCount);
  sheet.counter('nbd_read_bytes_total', 'Bytes of points read over NBD since the start.')({}, nbd.readBytes);
  sheet.counter('nbd_failed_requests_total', 'Reads of points over NBD that failed, since the start.')({}, nbd.failedRequests);
  sheet.gauge('volume_free_bytes', 'Free on the file system of the data folder.')({}, volume?.freeBytes);
  sheet.gauge('volume_kept_bytes', 'Nothing more is taken before less than this is free.')({}, volume?.keptBytes);
  sheet.gauge('volume_full_forecast_seconds', 'Until nothing more is taken, if the volume goes on to fill as in the last hours; absent when it does not fill.')({}, seconds(volume?.fullInMs));
  sheet.gauge('certificate_expiry_timestamp_seconds', 'When the certificate ends.')({ certificate: 'target' }, seconds(certificateExpiresAtMs));
}

function addGroups(sheet: MetricSheet, { sources, failovers, tests }: TargetReport, groups: readonly GroupStoreReport[]): void {
  const here = new Set(sources.map(({ sourceId }) => sourceId));
  const inState = sheet.gauge('group_state', 'Whether the group is in this state.');
  const term = sheet.gauge('group_term', 'The term of the group.');
  const objective = sheet.gauge('group_rpo_objective_seconds', 'The recovery point objective of the group, as its source announced it.');
  const isConnected = sheet.gauge('group_source_connected', 'Whether the group’s source is connected.');
  const newest = sheet.gauge('group_newest_point_timestamp_seconds', 'When the newest point was cut, by the source’s clock.');
  const arrived = sheet.gauge('group_newest_point_arrival_timestamp_seconds', 'When the newest point became durable here.');
  const pending = sheet.gauge('apply_pending_points', 'Sealed points that wait to be applied to the replica.');
  const lag = sheet.gauge('apply_lag_seconds', 'How long the oldest of them has waited; 0 when none does.');
  const replica = sheet.gauge('replica_bytes', 'Space that the replica takes.');
  const disk = sheet.gauge('replica_disk_size_bytes', 'Size of the replica’s disk.');
  const held = sheet.gauge('group_held', '1 while the group takes nothing more, or cannot apply, by the code that says why.');
  const failedOver = sheet.gauge('failover_running', 'Of a group that has failed over to here: whether its guests run.');
  const testing = sheet.gauge('test_failover_running', 'Whether a test failover of the group is under way.');
  for (const group of groups) {
    const labels = { group: group.name };
    for (const state of states) inState({ ...labels, state }, group.state === state);
    term(labels, group.term);
    objective(labels, seconds(group.rpoMs));
    isConnected(labels, here.has(group.sourceId));
    newest(labels, seconds(group.newest?.cutAtMs));
    arrived(labels, seconds(group.newest?.arrivedAtMs));
    pending(labels, group.apply?.pendingPoints);
    lag(labels, seconds(group.apply?.lagMs));
    replica(labels, group.replicaBytes);
    for (const { disk: index, name, sizeBytes } of group.disks) disk({ ...labels, disk: String(index), device: name }, sizeBytes);
    if (group.held !== null) held({ ...labels, code: group.held.code }, 1);
    failedOver(labels, failovers.find((one) => one.group === group.name)?.isRunning);
    testing(labels, tests.some((one) => one.group === group.name));
  }
}

function addHistory(sheet: MetricSheet, groups: readonly GroupStoreReport[]): void {
  const points = sheet.gauge('points', 'Points that can be restored.');
  const oldest = sheet.gauge('oldest_point_timestamp_seconds', 'When the oldest point was cut that can be restored.');
  const journal = sheet.gauge('journal_bytes', 'Space that the journal takes.');
  const history = sheet.gauge('history_bytes', 'Space that the history takes.');
  const promised = sheet.gauge('history_window_promised_seconds', 'Protected time of which every point is to be kept.');
  const had = sheet.gauge('history_window_seconds', 'Protected time of which every point is there.');
  const used = sheet.gauge('retention_used_bytes', 'What journal and history take of their limit.');
  const limit = sheet.gauge('retention_limit_bytes', 'What journal and history may take now: the budget, or less where the volume has less.');
  const budget = sheet.gauge('retention_budget_bytes', 'What the config allows journal and history; absent when it sets no bound.');
  for (const { name: group, pointCount, oldest: first, journalBytes, historyBytes, retention } of groups) {
    points({ group }, pointCount);
    oldest({ group }, seconds(first?.cutAtMs));
    journal({ group }, journalBytes);
    history({ group }, historyBytes);
    promised({ group }, seconds(retention?.windowMs));
    had({ group }, seconds(retention?.windowHadMs));
    used({ group }, retention?.usedBytes);
    limit({ group }, retention?.limitBytes);
    budget({ group }, retention?.budgetBytes);
  }
}

function addReadiness(sheet: MetricSheet, { checks, rehearsals, startChecks, automatic }: TargetReport, known: ReadonlySet<string>): void {
  const checkedAt = sheet.gauge('last_check_timestamp_seconds', 'When all that is stored of the group was last checked; 0: never.');
  const findings = sheet.gauge('check_findings', 'Places that the last check found damaged.');
  for (const { group, lastAtMs, findingCount } of (checks ?? []).filter((one) => known.has(one.group))) {
    checkedAt({ group }, seconds(lastAtMs ?? 0));
    findings({ group }, findingCount);
  }
  const rehearsedAt = sheet.gauge('last_rehearsal_timestamp_seconds', 'When the last rehearsal of the group ended.');
  const passed = sheet.gauge('last_rehearsal_passed', 'Whether the last rehearsal passed.');
  const rto = sheet.gauge('last_rehearsal_rto_seconds', 'From its start until the first processors ran.');
  const ready = sheet.gauge('last_rehearsal_ready_seconds', 'From its start until all guests were ready.');
  const proven = sheet.gauge('last_proven_boot_timestamp_seconds', 'When a rehearsal of the group last passed; 0: never.');
  for (const one of (rehearsals ?? []).filter(({ group }) => known.has(group))) {
    const labels = { group: one.group };
    rehearsedAt(labels, seconds(one.endedAtMs));
    passed(labels, one.isPassed);
    rto(labels, seconds(one.rtoMs));
    ready(labels, seconds(one.readyMs));
    proven(labels, seconds(one.lastPassedAtMs ?? 0));
  }
  const verdict = sheet.gauge('start_check_verdict', 'Whether the last look found that the group could start here.');
  const lookedAt = sheet.gauge('start_check_timestamp_seconds', 'When that was looked at.');
  for (const one of (startChecks ?? []).filter(({ group }) => known.has(group))) {
    for (const name of verdicts) verdict({ group: one.group, verdict: name }, one.verdict === name);
    lookedAt({ group: one.group }, seconds(one.atMs));
  }
  const unheld = sheet.gauge('automatic_failover_unheld_seconds', 'Of a group that fails over by itself: how long nobody has held its lease; absent while somebody does.');
  for (const { group, unheldMs } of automatic ?? []) unheld({ group }, seconds(unheldMs));
}
