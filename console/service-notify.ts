/**
 * Tells a service manager that asked for it (NOTIFY_SOCKET, sd_notify(3)) that the daemon is ready, stopping, alive. Node has
 * no datagrams on unix sockets, hence libc. Where nobody asked, nothing happens and libc is not even loaded.
 */
import type { Logger } from 'pino';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;

export interface ServiceNotifier {
  ready(): void;
  stopping(): void;
}

/** Failures are logged once and never keep a daemon from working. */
export async function openServiceNotifier(log: Logger, environment: NodeJS.ProcessEnv = process.env): Promise<ServiceNotifier> {
  const address = environment['NOTIFY_SOCKET'];
  if (address === undefined || !/^[/@]/.test(address)) return { ready: () => undefined, stopping: () => undefined };
  const send = await datagramSender(address, log);
  let watchdog: NodeJS.Timeout | undefined;
  return {
    ready: () => {
      send(`READY=1\nMAINPID=${process.pid}`);
      const watchdogMs = watchdogIntervalMs(environment);
      // A main loop that hangs does not come here, and the service manager ends it.
      if (watchdogMs !== null) watchdog = setInterval(() => send('WATCHDOG=1'), watchdogMs).unref();
    },
    stopping: () => {
      clearInterval(watchdog);
      send('STOPPING=1');
    },
  };
}

/** Half of what the service manager allows, as sd_watchdog_enabled(3) advises; null when it watches nobody or another process. */
export function watchdogIntervalMs(environment: NodeJS.ProcessEnv): number | null {
  const { WATCHDOG_USEC, WATCHDOG_PID } = environment;
  const usec = Number(WATCHDOG_USEC);
  const isForUs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
  return WATCHDOG_USEC !== undefined && isForUs && Number.isFinite(usec) && usec > 0 ? usec / 2000 : null;
}

async function datagramSender(address: string, log: Logger): Promise<(state: string) => void> {
  const { default: koffi } = await import('koffi');
  const libc = koffi.load(null);
  const socket = libc.func('int socket(int domain, int type, int protocol)');
  const sendto = libc.func('int64_t sendto(int fd, const void *data, size_t length, int flags, const void *address, uint32_t address_length)');
  const close = libc.func('int close(int fd)');
  // sockaddr_un: family, then the path; a leading @ stands for the zero byte of the abstract namespace.
  const path = Buffer.from(address.startsWith('@') ? `\0${address.slice(1)}` : `${address}\0`, 'utf8');
  const target = Buffer.concat([Buffer.alloc(2), path]);
  target.writeUInt16LE(AF_UNIX, 0);
  let hasFailed = false;
  return (state) => {
    const data = Buffer.from(state, 'utf8');
    const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) as number;
    const sent = fd < 0 ? -1 : Number(sendto(fd, data, data.length, MSG_NOSIGNAL, target, target.length));
    if (fd >= 0) close(fd);
    if (sent !== data.length && !hasFailed) {
      hasFailed = true;
      log.warn({ address, errno: koffi.errno() }, 'the service manager cannot be told about this daemon’s state');
    }
  };
}
