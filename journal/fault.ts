/**
 * Failures of the world (not bugs: those are assertions). One class, a code of a closed union, facts as fields.
 * The table is also the manual: `afterimage explain CODE` prints its row. Nobody matches on message text.
 */

export interface FaultRow {
  /** What happened. */
  readonly meaning: string;
  /** What the daemon does about it by itself. */
  readonly daemonDoes: string;
  /** What the operator can do. */
  readonly operatorCan: string;
}

export const faultTable = {
  // Wire
  WIRE_GARBAGE: { meaning: 'The peer sent bytes that are no message of this protocol.', daemonDoes: 'Closes the connection; a source connects again after a pause.', operatorCan: 'Check that the address is an Afterimage target and that nothing between the hosts alters the stream.' },
  WIRE_VERSION: { meaning: 'The peer speaks a protocol version that this one does not.', daemonDoes: 'Closes the connection and tries again later.', operatorCan: 'Bring both hosts to the same release; the message says which versions each speaks.' },
  WIRE_OVERSIZED: { meaning: 'The peer sent a frame larger than the limit, or more than its credit.', daemonDoes: 'Closes the connection; nothing of the frame is used.', operatorCan: 'Check the peer: this does not happen between sound daemons.' },
  WIRE_SECRET: { meaning: 'The source could not prove that it is paired, nor that it has an invitation.', daemonDoes: 'Refuses the connection, counts it.', operatorCan: 'Pair the source again with a new invitation.' },
  WIRE_FINGERPRINT: { meaning: 'The target showed a certificate other than the one it was paired with.', daemonDoes: 'Sends nothing, tries again later.', operatorCan: 'If the target was set up anew, pair again. Otherwise someone may be between the hosts.' },
  WIRE_SILENT: { meaning: 'The peer did not answer a heartbeat in time.', daemonDoes: 'Ends the connection and connects again.', operatorCan: 'Check the network between the hosts.' },
  // Records and deltas, as the target sees them
  RECORD_CORRUPT: { meaning: 'A record arrived that fails its checksum or its limits.', daemonDoes: 'Uses nothing of it, closes the connection; the source sends the delta again.', operatorCan: 'If it repeats, test the memory and network adapters of both hosts.' },
  RECORD_MISPLACED: { meaning: 'A record does not follow its predecessor, belongs to another delta, or lies beyond the end of its disk.', daemonDoes: 'Uses nothing of it, closes the connection.', operatorCan: 'Report it: sound daemons do not do this.' },
  DELTA_BASE: { meaning: 'A delta does not follow the newest sealed point of the group.', daemonDoes: 'Refuses it; the source compares and resyncs.', operatorCan: 'Nothing, unless it repeats.' },
  TERM_OLD: { meaning: 'The source belongs to a lower term: the group failed over since.', daemonDoes: 'Refuses the source for this group; the source stops sending and keeps its bitmaps.', operatorCan: 'Do not start the old guest as the live one. Fail back, or unprotect it there.' },
  GROUP_UNKNOWN: { meaning: 'The group is not known here.', daemonDoes: 'Refuses the request.', operatorCan: 'See `afterimage status` for the names.' },
  GROUP_FOREIGN: { meaning: 'The group belongs to another source.', daemonDoes: 'Refuses the announcement.', operatorCan: 'Choose another name, or unprotect it at the source that owns it.' },
  GROUP_FAILED_OVER: { meaning: 'The group has failed over and does not accept deltas.', daemonDoes: 'Refuses the source for this group.', operatorCan: 'Commit or roll back the failover at the target.' },
  // Store
  STORE_FULL: { meaning: 'The target has no space for what arrived.', daemonDoes: 'Acknowledges nothing more, keeps everything, tries again when there is space. The guest is untouched.', operatorCan: 'Free or add space on the target’s data volume.' },
  STORE_SYNC: { meaning: 'The target’s disk failed to make data durable.', daemonDoes: 'Closes the segment, counts its tail as lost, asks for it again.', operatorCan: 'Check the target’s disk and its kernel log.' },
  STORE_CORRUPT: { meaning: 'A file of the target does not hold what was written to it.', daemonDoes: 'Refuses to use it, names file and offset, never repairs it in silence.', operatorCan: 'Check the disk. A damaged replica can be resynced from the source by hash.' },
  STORE_NEWER: { meaning: 'A file was written by a newer release.', daemonDoes: 'Refuses to open the group.', operatorCan: 'Run the release that the message names, or a newer one.' },
  STORE_LOCKED: { meaning: 'Another target process has this data folder open, or another program writes to an image of it.', daemonDoes: 'Refuses to start, or to touch that image.', operatorCan: 'Stop the other process.' },
  // Hypervisor
  QMP_UNREACHABLE: { meaning: 'The guest’s QMP socket cannot be connected.', daemonDoes: 'Tries again; the guest’s RPO grows and is reported.', operatorCan: 'Start the guest, or check path and permissions of the socket.' },
  QMP_CLOSED: { meaning: 'The QMP connection ended.', daemonDoes: 'Drops the running cycle, merges its bitmap, connects again.', operatorCan: 'Nothing, unless the guest should be running.' },
  QMP_TIMEOUT: { meaning: 'QEMU did not answer a command in time.', daemonDoes: 'Closes the connection, starts over.', operatorCan: 'Look at the host’s load and at the guest’s QEMU.' },
  QMP_COMMAND: { meaning: 'QEMU refused a command.', daemonDoes: 'Drops the running cycle, merges its bitmap, tries again.', operatorCan: 'The message holds QEMU’s own words.' },
  QMP_GARBAGE: { meaning: 'What answers on the socket is not QMP.', daemonDoes: 'Closes the connection, tries again later.', operatorCan: 'Check that the path is the guest’s QMP socket.' },
  NBD_PROTOCOL: { meaning: 'The NBD peer broke the protocol.', daemonDoes: 'Closes the connection.', operatorCan: 'Report it with the peer’s version.' },
  NBD_REFUSED: { meaning: 'The NBD server refused an option or export.', daemonDoes: 'Gives up this connection.', operatorCan: 'The message names option and reason.' },
  NBD_IO: { meaning: 'The NBD server reported an error for a request.', daemonDoes: 'Fails that request.', operatorCan: 'Look at the disk behind the server.' },
  NBD_TLS: { meaning: 'An NBD client could not be authenticated: its TLS key or certificate is not known here, or TLS failed.', daemonDoes: 'Closes the connection; nothing was told to it.', operatorCan: 'Put the client’s key into the target’s NBD key file or its certificate’s fingerprint into the config.' },
  NBD_CLOSED: { meaning: 'The NBD connection ended with requests under way.', daemonDoes: 'Fails those requests.', operatorCan: 'Nothing by itself.' },
  GUEST_UNSUITED: { meaning: 'This guest or its QEMU cannot be protected safely.', daemonDoes: 'Refuses, inserts nothing.', operatorCan: 'The message says what is missing; `afterimage doctor` shows all of it.' },
  GUEST_CHANGED: { meaning: 'The guest’s disks are not what they were: a disk came, went, was replaced or overlaid.', daemonDoes: 'Seals no point until the chain is accounted for.', operatorCan: 'Nothing if the change was meant.' },
  GUEST_TAKEN: { meaning: 'The guest is protected already under another name.', daemonDoes: 'Refuses.', operatorCan: 'Unprotect it first.' },
  BITMAP_LOST: { meaning: 'The guest’s dirty bitmaps are gone, broken, or do not match what the target holds.', daemonDoes: 'Resyncs by hash comparison: only what differs moves.', operatorCan: 'Nothing.' },
  DELTA_BROKEN: { meaning: 'The delta image could not take all that QEMU wrote (full or failing spool).', daemonDoes: 'Drops the cycle, merges its bitmap; the next delta is larger. The guest is untouched.', operatorCan: 'Give the spool more space or a sound disk.' },
  CUT_BLURRED: { meaning: 'The guest wrote in the moment between the cut and the start of QEMU’s copy, so the delta may mix two instants.', daemonDoes: 'Drops the cycle and cuts again at once.', operatorCan: 'Nothing, unless it repeats for long: then the guest writes without a pause and a newer QEMU helps.' },
  CUT_PAUSED: { meaning: 'The guests of a group were paused for a cut, and not all of them were cut within the limit.', daemonDoes: 'Has them go on at once, drops the cycle and cuts again.', operatorCan: 'See why QEMU takes long to pause the guests (mostly their disks, which it flushes then); raise `pauseLimit`, or choose `consistency: per-guest`.' },
  PAUSE_UNARMED: { meaning: 'The process that has paused guests go on, whatever happens to the daemon, could not be started.', daemonDoes: 'Pauses no guest and takes no point of the group.', operatorCan: 'The message says what is missing.' },
  LOG_IMPLAUSIBLE: { meaning: 'A write log holds what no write log can hold.', daemonDoes: 'Takes the log out of the guest and goes on by dirty bitmaps, from the same point; later tries the log again.', operatorCan: 'Nothing, unless it repeats: QEMU before 8.2.1 is known to spoil its log on some writes of zeroes; then choose `--capture cbt`.' },
  LOG_BROKEN: { meaning: 'A write log could not take all that was written (it reached its bound, or the spool is full or failing; of a log of the kernel’s: it is full).', daemonDoes: 'Takes the log out of the guest and goes on by dirty bitmaps, from the same point. A log of the kernel’s is asked again and again. The guest is untouched.', operatorCan: 'Give the spool more space or a sound disk, if it repeats; give the kernel a new log.' },
  SPOOL_FULL: { meaning: 'The spool’s budget or the minimum of free space does not allow a delta image.', daemonDoes: 'Waits; the bitmaps go on. RPO grows and is reported.', operatorCan: 'Raise the spool’s budget or free space.' },
  // Managers of guests
  LIBVIRT_UNREACHABLE: { meaning: 'The guest belongs to libvirt, and libvirt does not answer (or there is no `virsh` on this host).', daemonDoes: 'Tries again; it does not take the guest for gone. A guest that is followed through a monitor of its own is followed on.', operatorCan: 'See whether libvirtd (or virtqemud) runs and whether this user may ask it: `virsh -c URI list --all`. Debian’s package with virsh is libvirt-clients.' },
  LIBVIRT_REFUSED: { meaning: 'libvirt said no to what it was asked.', daemonDoes: 'Undoes what it had begun, if anything.', operatorCan: 'The message holds libvirt’s own words.' },
  // Application-consistent and marked points
  AGENT_NONE: { meaning: 'No channel to QEMU’s guest agent is configured for the guest, and its QEMU has none that could be used.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'Give the guest a virtio-serial port named org.qemu.guest_agent.0 on a unix socket, and run qemu-guest-agent in it; or name the socket in the config (`agent`).' },
  AGENT_TAKEN: { meaning: 'Another program of this host is connected to the guest agent’s socket, which serves one at a time.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'See which program it is (often libvirt), and let one of the two have the agent.' },
  AGENT_UNREACHABLE: { meaning: 'The guest agent’s socket cannot be connected.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'Check path and permissions of the socket.' },
  AGENT_SILENT: { meaning: 'The guest agent did not answer in time: it does not run, hangs, or another program holds its socket.', daemonDoes: 'Takes the point as `crash`. If a freeze may be under way, the watchdog goes on until the guest is thawed.', operatorCan: 'Check that qemu-guest-agent runs in the guest.' },
  AGENT_CLOSED: { meaning: 'The connection to the guest agent ended.', daemonDoes: 'Takes the point as `crash`; the watchdog connects again and thaws what was frozen.', operatorCan: 'Nothing, unless it repeats.' },
  AGENT_GARBAGE: { meaning: 'What answers on the guest agent’s socket does not speak its protocol.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'Check that the path is the agent’s socket.' },
  AGENT_REFUSED: { meaning: 'The guest agent refused a command.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'The message holds the agent’s own words; commands may be blocked in its configuration in the guest.' },
  FREEZE_NOTHING: { meaning: 'The guest agent found no file system that can be frozen.', daemonDoes: 'Takes the point as `crash`.', operatorCan: 'See which file systems the guest has: only local ones on disks freeze.' },
  FREEZE_FOREIGN: { meaning: 'The guest’s file systems are frozen already, by another program.', daemonDoes: 'Freezes and thaws nothing, takes the point as `crash`.', operatorCan: 'See which program froze them. If none did: `guest-fsfreeze-thaw`.' },
  FREEZE_LATE: { meaning: 'The guest was not frozen, or not cut, within the limit on the time frozen.', daemonDoes: 'The watchdog has thawed it at the limit; the point is `crash`.', operatorCan: 'See why the guest’s file systems take long to freeze, or raise `freezeLimit`.' },
  FREEZE_UNARMED: { meaning: 'The watchdog that thaws the guest whatever happens to the daemon could not be armed.', daemonDoes: 'Freezes nothing, takes the point as `crash`.', operatorCan: 'The message says what is missing. A daemon that runs as a systemd service needs systemd-run, to start the watchdog outside its own control group.' },
  FREEZE_PENDING: { meaning: 'An earlier freeze of this guest was never seen to end.', daemonDoes: 'Tries on to thaw it, freezes nothing before that has succeeded, takes the point as `crash`.', operatorCan: 'See whether the guest and its agent are alive; `guest-fsfreeze-thaw` by hand ends it as well.' },
  MARK_NOT_TAKEN: { meaning: 'A point that was asked for was not acknowledged by the target in time.', daemonDoes: 'Withdraws the request; if it was cut already, the point may still arrive with its label.', operatorCan: 'See `afterimage status` for why; ask again when the guest is protected.' },
  // Points
  RETENTION_FULL: { meaning: 'Journal and history have reached their limit, and all of it is promised or held.', daemonDoes: 'Takes nothing more of the group, gives up nothing that is promised, goes on when there is room.', operatorCan: 'Raise the budget or add space, shorten the window, or release what is held.' },
  POINT_LOCKED: { meaning: 'The point is locked until a date, and what was asked would end that before.', daemonDoes: 'Refuses; nothing is changed. Nobody can shorten a lock, whatever the clock says.', operatorCan: 'Wait for its end (`afterimage points GUEST`).' },
  GROUP_RENAMED: { meaning: 'A source announced a group under another name than the target has it by.', daemonDoes: 'Refuses: what is kept of a group goes by its name at the target.', operatorCan: 'Protect the guest under the name that the target knows, or anew as another group.' },
  FORGET_REFUSED: { meaning: 'A source asked the target to remove a group that has points.', daemonDoes: 'Refuses: a source adds to a history, and takes nothing from it.', operatorCan: 'At the target: `afterimage forget GUEST`.' },
  AUDIT_UNWRITTEN: { meaning: 'The audit trail cannot be written.', daemonDoes: 'Keeps the entries in memory, does what it is asked, and tries again with the next entry.', operatorCan: 'Free space on the data folder’s file system, or look after its disk.' },
  CONTROL_PEER: { meaning: 'The control socket was connected to by a user who may not use it.', daemonDoes: 'Refuses every request of that connection.', operatorCan: 'Use sudo, or the daemon’s own user; look at who gave the socket another mode.' },
  ADOPTION_REFUSED: { meaning: 'The target of this host, which runs as a user of its own, asked the source to follow or to let go of a guest that is not that user’s to speak of.', daemonDoes: 'Refuses: what is protected stays so. The guest that the target started runs, and nobody follows what it writes.', operatorCan: 'The message says what stands against it. If nobody asked for a failover here, look at who has that user. If somebody did, protect the guest by hand.' },
  VOLUME_EXCEEDED: { meaning: 'A source has brought more bytes than its volume limit allows.', daemonDoes: 'Takes nothing more of it until the time of the limit has passed; nothing that is kept changes.', operatorCan: 'See what the source does: a guest that writes much, or somebody with its key. Raise `volume` in the target’s config if it is right.' },
  AUDIT_BROKEN: { meaning: 'The audit trail does not hold what was written to it.', daemonDoes: 'Says where; goes on writing behind it.', operatorCan: 'Compare with a copy kept elsewhere: somebody changed or removed entries.' },
  POINT_UNKNOWN: { meaning: 'There is no such point, or it is not restorable any more.', daemonDoes: 'Refuses.', operatorCan: 'See `afterimage points` for what can be had.' },
  DISK_UNKNOWN: { meaning: 'The guest has no such disk at that point.', daemonDoes: 'Refuses.', operatorCan: 'The message lists the disks that it has there.' },
  POINT_GONE: { meaning: 'A point was given up while it was being read without a hold.', daemonDoes: 'Ends the reading; nothing else is touched.', operatorCan: 'Choose a newer point.' },
  EXPORT_FAILED: { meaning: 'An export was not written, or what was written is not what the point holds.', daemonDoes: 'Nothing; the command removes what it had written and releases its hold.', operatorCan: 'The message holds qemu-img’s own words: mostly space or permissions of the folder. Run the command again.' },
  GUEST_SUSPECT: { meaning: 'Much of what the guest held, or many separate pieces of it, became like encrypted data within a few points, as far as samples of what was overwritten tell.', daemonDoes: 'Raises an alarm, names the last point from before it, and holds that point and older ones until somebody dismisses it or their time is over. Replication goes on.', operatorCan: 'Look at the guest. If it is under attack: `afterimage failover GUEST --at before-suspicion`, or test it first. If it is not: `afterimage dismiss GUEST`.' },
  // Failover
  FAILOVER_NO_POINT: { meaning: 'The group has no sealed point yet.', daemonDoes: 'Refuses.', operatorCan: 'Wait for the first sync to end.' },
  FAILOVER_BOOT: { meaning: 'QEMU did not start the guest at the target.', daemonDoes: 'Leaves overlay and log for inspection, says QEMU’s own words.', operatorCan: 'Run `afterimage doctor` at the target; mend what the message names; fail over again.' },
  TEST_SPACE: { meaning: 'There is not enough space for what the guest of a test failover may write.', daemonDoes: 'Refuses; protection goes on.', operatorCan: 'Name a smaller `--budget`, or free space on the volume of the overlay folder.' },
  WITNESS_UNREACHABLE: { meaning: 'The witness did not answer, or not as a witness does.', daemonDoes: 'A source goes on renewing its leases, and stops its guests in time where `onLeaseLost: pause` says so. A target claims nothing and boots nothing.', operatorCan: 'See whether the store runs and can be reached from this host. When it is lost too: see that the guest does not run anywhere, then `afterimage failover --without-witness`.' },
  WITNESS_BLANK: { meaning: 'The witness was never told of the group by its source.', daemonDoes: 'Refuses the failover; nothing has booted.', operatorCan: 'Configure the same witness at the source. Now: see that the guest does not run anywhere, then `afterimage failover --without-witness`.' },
  WITNESS_HELD: { meaning: 'The host of the group’s source still renews its lease at the witness: its guest may run there.', daemonDoes: 'Refuses the failover; nothing has booted and the term is what it was.', operatorCan: 'Fail over by plan (`--planned`). If the guest’s host is really lost, its lease ends by itself.' },
  WITNESS_CLAIMED: { meaning: 'The witness holds a claim of that term or of a higher one by another host.', daemonDoes: 'Refuses the failover; nothing has booted.', operatorCan: 'The message says who claimed it: the guest runs there. See `afterimage status` on that host.' },
  LEASE_LOST: { meaning: 'A guest that may only run while its lease is held was to be started again, and the lease is not held.', daemonDoes: 'Leaves it as it stands, and tries again.', operatorCan: 'See whether the witness can be reached, and what `afterimage status` says of the lease.' },
  HOOK_FAILED: { meaning: 'A hook that the config names ended with an error, or not in time.', daemonDoes: 'Ends the step that it was to come before; of a hook that comes after a step, says so and goes on.', operatorCan: 'The message holds what the hook said last.' },
  FAILOVER_STATE: { meaning: 'The group’s state does not allow this step.', daemonDoes: 'Refuses.', operatorCan: 'See `afterimage status` for the state.' },
  COMMIT_SPACE: { meaning: 'There is not enough space for the images of a failover to stand alone.', daemonDoes: 'Refuses to commit; the guest runs on as it did.', operatorCan: 'Free or add space on the volume of `overlayFolder`, or roll back.' },
  SOURCE_ABSENT: { meaning: 'The source of the group is not connected, or was lost in the middle of a planned failover.', daemonDoes: 'Starts nothing, or undoes what it had begun; the guest runs where it was, or is started there again by its source.', operatorCan: 'Bring the source back. If its host is lost, fail over without `--planned`.' },
  GUEST_KEEPS_RUNNING: { meaning: 'The guest did not shut down in time for a planned failover.', daemonDoes: 'Gives the failover up; the guest runs on.', operatorCan: 'Look at the guest; give it more time (`--shutdown-limit`), or have it stopped where it stands (`--on-limit stop`).' },
  HANDOVER_ENDED: { meaning: 'A planned failover came to nothing before the guest ran at the target.', daemonDoes: 'The source starts its guest again, and protection goes on.', operatorCan: 'See the target’s message for what went wrong.' },
  GROUP_UNCOMMITTED: { meaning: 'The guest runs here after a failover that is not committed yet, and its changes are not taken before that.', daemonDoes: 'The source’s bitmaps go on; it asks again.', operatorCan: 'Commit the failover, or roll it back.' },
  // Operator
  CONFIG_INVALID: { meaning: 'The configuration has an unknown key, a wrong type or an impossible value.', daemonDoes: 'Refuses to start, exit code 78.', operatorCan: 'The message names line and expectation.' },
  PAIRING_EXPIRED: { meaning: 'The invitation that the token carries has expired.', daemonDoes: 'Refuses the connection; nothing is paired.', operatorCan: 'Make a new one at the target: `afterimage target invite`.' },
  PAIRING_USED: { meaning: 'The invitation that the token carries has paired a source already: each is good for one.', daemonDoes: 'Refuses the connection; nothing is paired.', operatorCan: 'Make a new one at the target: `afterimage target invite`. If nobody of yours used it: `afterimage pairings` says who did, `afterimage revoke NAME` ends that.' },
  PAIRING_FOREIGN: { meaning: 'A source that is known to the target by another certificate, or that has groups there, was to be paired by an invitation that does not name it; or the invitation names another.', daemonDoes: 'Refuses the connection; nothing is paired, and the source that is known keeps what it has.', operatorCan: 'If it is that source, with a new certificate: `afterimage target invite --name SOURCE`.' },
  PAIRING_REVOKED: { meaning: 'The pairing was ended at the target, or here.', daemonDoes: 'Takes and sends nothing. A source keeps its bitmaps and asks again, less and less often.', operatorCan: 'If it was a mistake: `afterimage target invite --name SOURCE` at the target, `afterimage pair TOKEN` at the source. If its key was stolen: `afterimage source rotate --now` there first.' },
  PAIRING_UNKNOWN: { meaning: 'No such pairing, or several of that name.', daemonDoes: 'Refuses.', operatorCan: 'See `afterimage pairings`; name a source by its id or by its certificate’s fingerprint.' },
  PAIRING_TOKEN: { meaning: 'The pairing token is malformed.', daemonDoes: 'Refuses.', operatorCan: 'Copy the token whole, or make a new one at the target.' },
  ALERT_UNDELIVERED: { meaning: 'An alert could not be delivered on one of the ways that the config names.', daemonDoes: 'Keeps it for a day, and tries again with growing pauses.', operatorCan: 'The message holds what the other side said. `afterimage alert-test` tries all ways out.' },
  DAEMON_UNREACHABLE: { meaning: 'No daemon answers on the control socket.', daemonDoes: 'Nothing.', operatorCan: 'Start the daemon, or name its config with --config.' },
  REQUEST_INVALID: { meaning: 'The request to the daemon is malformed.', daemonDoes: 'Refuses.', operatorCan: 'Use the command line of the same release as the daemon.' },
  TARGET_UNREACHABLE: { meaning: 'The target’s address cannot be connected.', daemonDoes: 'When pairing: nothing is kept. Otherwise tries again, and the RPO grows and is reported.', operatorCan: 'Check that the target runs, that its `advertise` names this address and port, and that no firewall is between.' },
  TARGET_UNPAIRED: { meaning: 'This source is not paired with that target, or with more than one and none was named.', daemonDoes: 'Refuses.', operatorCan: 'Run `afterimage target invite` at the target and `afterimage pair TOKEN` here; name the target with --target when there are several.' },
  OPERATOR_TOKEN: { meaning: 'The request came over the network without a token that is known here and has not ended.', daemonDoes: 'Refuses, counts it by address, and does not say which of the two it was.', operatorCan: 'Give the token’s file with --token-file; make one on the daemon’s host with `afterimage token create NAME --scope SCOPE`.' },
  OPERATOR_SCOPE: { meaning: 'The token may not do this.', daemonDoes: 'Refuses; nothing was done.', operatorCan: 'Use a token of the scope that the message names, or the command line on the daemon’s host.' },
  REQUEST_FLOOD: { meaning: 'Too many requests of this kind came from one address, or are under way.', daemonDoes: 'Refuses for a while; requests with a good token go on.', operatorCan: 'See who sends them; try again after the time that the answer names.' },
  KEY_REUSED: { meaning: 'An Idempotency-Key was used before with another request.', daemonDoes: 'Refuses; nothing was done.', operatorCan: 'Take a new key for each act, and the same only for its retries.' },
  OUTCOME_UNKNOWN: { meaning: 'An act with this Idempotency-Key was begun before, and its answer is not known any more: the daemon ended in the middle of it, or the answer held a secret and was not kept.', daemonDoes: 'Does not do it again.', operatorCan: 'See `afterimage status` for what came of it; then ask again with a new key.' },
  API_UNTRUSTED: { meaning: 'The daemon at that address shows another certificate than the one that was named, or one that nobody known here vouches for.', daemonDoes: 'Nothing; the command sent it no token.', operatorCan: 'Compare the fingerprint with what the daemon logs at its start, and give it with --fingerprint.' },
  CONTROL_SOCKET: { meaning: 'The control socket cannot be opened safely: another daemon listens there, or others may write to its folder.', daemonDoes: 'Refuses to start.', operatorCan: 'Stop the other daemon, or name another `control` path in a folder that only its owner may write to.' },
  FOLDER_UNSAFE: { meaning: 'A folder of the daemon’s belongs to another user, or others may write to it.', daemonDoes: 'Refuses to start; nothing was written there.', operatorCan: 'Give the folder to the daemon’s user (`chown`), and let nobody else write to it (`chmod go-w`); look at what is in it first.' },
  INTERNAL: { meaning: 'A bug: the daemon met a state that it takes for impossible.', daemonDoes: 'Fails the request and logs the stack; if it concerns more than the request, it ends with exit code 70 and the service manager starts it anew.', operatorCan: 'Report it with the log.' },
} as const satisfies Record<string, FaultRow>;

export type FaultCode = keyof typeof faultTable;

export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: FaultCode;
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(code: FaultCode, message: string, facts: Readonly<Record<string, unknown>> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.facts = facts;
  }
}

export function isFault(error: unknown, code?: FaultCode): error is Fault {
  return error instanceof Fault && (code === undefined || error.code === code);
}
