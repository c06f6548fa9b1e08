/** One run of qemu-img with its progress; it is ended, and waited for, when it is no longer wanted. */
import { spawn } from 'node:child_process';
import { Fault } from '../../journal/fault.ts';
import { progressIn } from './export-plan.ts';

/** qemu-img says in a line or two what is wrong. */
const saidLengthMax = 2_000;
/** After SIGTERM; it has nothing to save. */
const endMsMax = 5_000;

/** Resolves with the exit code: 0, or what `codes` lists beside it. Faults: EXPORT_FAILED; the signal's reason when aborted. */
export function runQemuImg(args: readonly string[], signal: AbortSignal, onProgress: (share: number) => void, codes: readonly number[] = []): Promise<number> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const child = spawn('qemu-img', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    let timer: NodeJS.Timeout | undefined;
    const end = (): void => {
      child.kill('SIGTERM');
      timer = setTimeout(() => child.kill('SIGKILL'), endMsMax);
    };
    signal.addEventListener('abort', end, { once: true });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const share = progressIn(text);
      if (share !== null) onProgress(share);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => { said = (said + text).slice(-saidLengthMax); });
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      act();
    };
    child.once('error', (error) => settle(() => reject(new Fault('EXPORT_FAILED', `qemu-img could not be started: ${error.message}`, { command: args[0] }, error))));
    child.once('close', (code, killedBy) => settle(() => {
      if (signal.aborted) return reject(signal.reason as Error);
      if (code === 0 || (code !== null && codes.includes(code))) return resolve(code);
      reject(new Fault('EXPORT_FAILED', `qemu-img ${args[0]} failed: ${said.trim() === '' ? killedBy ?? `exit code ${code}` : said.trim()}`, { command: args[0], exitCode: code }));
    }));
  });
}
