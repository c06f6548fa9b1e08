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
  /** From here until `ready`, as long as the main loop turns, the service manager is asked to wait a little longer. */
  starting(): void;
  /**
   * From here on the service manager hears that the daemon lives, as often as it wants to, but only when `ask` has just answered null; what it answers
   * instead, why the daemon is of no use, goes to the log and to the manager's status. The manager ends a daemon that it does not hear of.
   */
  ready(ask: () => Promise<string | null>): void;
  stopping(): void;
}

/** Each time that more is asked for while starting, and how long that is: a little more than two of the former, so that one may be late, ms. */
const startingEveryMs = 20_000;
const startingExtensionMs = 60_000;

/** Failures are logged once and never keep a daemon from working. */
export async function openServiceNotifier(log: Logger, environment: NodeJS.ProcessEnv = process.env): Promise<ServiceNotifier> {
  const address = environment['NOTIFY_SOCKET'];
  if (address === undefined || !/^[/@]/.test(address)) return { starting: () => undefined, ready: () => undefined, stopping: () => undefined };
  const send = await datagramSender(address, log);
  let timer: NodeJS.Timeout | undefined;
  const every = (ms: number, act: () => void): void => {
    clearInterval(timer);
    timer = setInterval(act, ms).unref();
  };
  const watch = (ask: () => Promise<string | null>, everyMs: number): void => {
    let isAsking = false;
    let said: string | null = null;
    const turn = async (): Promise<void> => {
      // One that has not been answered is itself the answer.
      if (isAsking) return;
      isAsking = true;
      const why = await ask();
      isAsking = false;
      if (why === null) send('WATCHDOG=1');
      if (why === said) return;
      said = why;
      send(`STATUS=${why === null ? 'well' : why.replaceAll('\n', ' ')}`);
      if (why !== null) log.error({ why }, 'this daemon is of no use: unless that changes the service manager will end it and start it anew');
    };
    every(everyMs, () => void turn());
  };
  return {
    starting: () => {
      const more = (): void => send(`EXTEND_TIMEOUT_USEC=${startingExtensionMs * 1000}`);
      more();
      every(startingEveryMs, more);
    },
    ready: (ask) => {
      clearInterval(timer);
      send(`READY=1\nMAINPID=${process.pid}\nSTATUS=well`);
      const watchdogMs = watchdogIntervalMs(environment);
      if (watchdogMs !== null) watch(ask, watchdogMs);
    },
    stopping: () => {
      clearInterval(timer);
      send('STOPPING=1');
    },
  };
}

/**
 * A sixth of what the service manager allows; null when it watches nobody or another process. It counts from the last answer, which takes a while to come: with half, as
 * sd_watchdog_enabled(3) advises for those who answer at once, one slow answer would end a daemon. Two that take a quarter of the time, and fail, are survived.
 */
export function watchdogIntervalMs(environment: NodeJS.ProcessEnv): number | null {
  const { WATCHDOG_USEC, WATCHDOG_PID } = environment;
  const usec = Number(WATCHDOG_USEC);
  const isForUs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
  return WATCHDOG_USEC !== undefined && isForUs && Number.isFinite(usec) && usec > 0 ? usec / 6000 : null;
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
