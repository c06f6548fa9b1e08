/** Alerts to a program of the operator's, as one JSON document on its standard input (alert-options.ts `Bulletin`), with a limit of time. */
import { basename } from 'node:path';
import { runCommand } from '../../host/node/run-command.ts';
import { Fault } from '../../journal/fault.ts';
import type { AlertChannel } from './alert-channel.ts';

const runMsMax = 30_000;

export function commandChannel(command: readonly string[]): AlertChannel {
  const program = basename(command[0] ?? '');
  return {
    name: `command (${program})`,
    takes: () => true,
    async send(bulletin, signal) {
      const why = await runCommand(command, { facts: { ...bulletin }, limitMs: runMsMax, signal });
      if (why !== null) throw new Fault('ALERT_UNDELIVERED', `${program}: ${why}`, { program });
      return 'it ended well';
    },
  };
}
