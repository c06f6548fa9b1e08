/** Checks of the machine itself: Node, clock, ports, the other side's address. */
import { connect, createServer } from 'node:net';
import { Fault } from '../../journal/fault.ts';
import type { TargetConfig } from '../config/config.ts';
import { TargetClient } from '../control-client.ts';
import type { HostFacts } from './binaries.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';
import { isClockSynchronised } from './kernel-clock.ts';

/** package.json `engines`. */
const nodeMin = [20, 16] as const;
const connectMsMax = 5_000;

export function nodeCheck(host: HostFacts): Check {
  return {
    name: 'Node',
    run: async () => {
      const [major = 0, minor = 0] = host.nodeVersion.slice(1).split('.').map(Number);
      const isNew = major > nodeMin[0] || (major === nodeMin[0] && minor >= nodeMin[1]);
      return isNew ? ok(host.nodeVersion) : fail(host.nodeVersion, `Install Node ${nodeMin.join('.')} or later.`);
    },
  };
}

export function clockCheck(): Check {
  return {
    name: 'clock',
    run: async () => {
      switch (isClockSynchronised()) {
        case true: return ok('synchronised');
        case false: return warn('the kernel says that nobody keeps it right', 'Points carry this time: run chrony or systemd-timesyncd (timedatectl set-ntp true).');
        case null: return warn('the kernel does not say whether it is kept right', 'Make sure that chrony or systemd-timesyncd runs.');
      }
    },
  };
}

/** Free, or taken by the very daemon that it is for. */
export function portCheck(config: TargetConfig): Check {
  const { host, port } = config.options.listen;
  return {
    name: 'port',
    run: async () => {
      if (port === 0) return ok('any free one');
      const refusal = await tryListen(host, port);
      if (refusal === null) return ok(`${host}:${port} is free`);
      if (refusal === 'EADDRINUSE') {
        return await isRunning(config) ? ok(`${host}:${port}, this target listens`) : fail(`${host}:${port} is taken by another process`, `See who it is: ss -ltnp 'sport = :${port}'. Or set another \`listen.port\`.`);
      }
      return fail(`${host}:${port} cannot be listened on (${refusal})`, refusal === 'EACCES' ? 'Ports below 1024 need root: set another `listen.port`.' : 'Set `listen.host` to an address of this host.');
    },
  };
}

function tryListen(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

async function isRunning(config: TargetConfig): Promise<boolean> {
  try {
    await new TargetClient(config.controlPath).report();
    return true;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** Whether anybody takes connections at a paired target's address. Who it is, the daemons find out. */
export function reachableCheck(name: string, host: string, port: number): Check {
  return {
    name: `target ${name}`,
    run: () => new Promise<Finding>((resolve) => {
      const socket = connect({ host, port, timeout: connectMsMax });
      const settle = (finding: Finding): void => {
        socket.destroy();
        resolve(finding);
      };
      socket.once('connect', () => settle(ok(`${host}:${port} takes connections`)));
      socket.once('timeout', () => settle(fail(`${host}:${port} does not answer`, 'Check the network, and firewalls on the way.')));
      socket.once('error', (error: NodeJS.ErrnoException) => settle(fail(`${host}:${port} cannot be reached (${error.code ?? error.message})`, 'Start the target, or check name, port and firewalls.')));
    }),
  };
}
