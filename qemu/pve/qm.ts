/** Runs Proxmox VE's `qm`, which keeps its locks and its bookkeeping (taps, firewall bridges, sockets) itself. */
import { execFile } from 'node:child_process';
import { Fault } from '../../journal/fault.ts';

/** Its place on every Proxmox VE. */
export const qmDefault = ['/usr/sbin/qm'];
/** Memory is allocated before it is through; `qm` itself waits for locks and for QEMU within this, ms. */
const qmMsMax = 120_000;

/** `command`: program and first arguments. Fault FAILOVER_BOOT (facts: said), with its own words. */
export function qm(command: readonly string[], args: readonly string[]): Promise<string> {
  const [program, ...first] = command;
  if (program === undefined) throw new RangeError('an empty command line');
  return new Promise((resolve, reject) => {
    const child = execFile(program, [...first, ...args], { env: { ...process.env, LC_ALL: 'C' }, timeout: qmMsMax, killSignal: 'SIGKILL', maxBuffer: 1024 ** 2 }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      // What QEMU says comes last, behind its own arguments.
      const said = stderr.split('\n').map((line) => line.trim()).filter((line) => line !== '').join('; ').slice(-500);
      const words = said !== '' ? said : error.killed === true ? `no answer within ${qmMsMax} ms` : error.message;
      reject(new Fault('FAILOVER_BOOT', `Proxmox VE refused qm ${args.join(' ')}: ${words}`, { args: args.join(' '), said }, error));
    });
    child.stdin?.end();
  });
}
