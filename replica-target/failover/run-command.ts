/** Runs a program of the operator's, with the facts as JSON on its standard input and a time limit that holds for all that it starts. Its output is not shown, but for the end of what it says on standard error. */
import { spawn } from 'node:child_process';

/** What it said last, characters. */
const saidMax = 500;

export interface CommandOptions {
  readonly facts: Readonly<Record<string, unknown>>;
  readonly limitMs: number;
  readonly signal?: AbortSignal;
}

/** Null: it ended well. Else why not, for people. Never rejects. */
export function runCommand([program, ...args]: readonly string[], { facts, limitMs, signal }: CommandOptions): Promise<string | null> {
  return new Promise((resolve) => {
    // A process group of its own: what a script has started ends with it.
    const child = spawn(program!, args, { stdio: ['pipe', 'ignore', 'pipe'], detached: true });
    let said = '';
    let killed: string | null = null;
    const kill = (why: string): void => {
      killed ??= why;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    };
    const stop = (): void => kill('it was not waited for');
    const timer = setTimeout(() => kill(`it took longer than ${limitMs} ms`), limitMs);
    const end = (why: string | null): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
      resolve(why);
    };
    if (signal?.aborted === true) stop();
    else signal?.addEventListener('abort', stop, { once: true });
    child.stderr.on('data', (chunk: Buffer) => { said = `${said}${chunk.toString('utf8')}`.slice(-saidMax); });
    child.stdin.on('error', () => undefined);
    child.stdin.end(`${JSON.stringify(facts)}\n`);
    child.once('error', (error) => end(error.message));
    child.once('close', (code, ended) => end(code === 0 ? null : `${killed ?? `it ended with ${code ?? ended ?? 'nothing'}`}${said === '' ? '' : `: ${said.trim()}`}`));
  });
}
