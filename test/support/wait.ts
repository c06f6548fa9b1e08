/** Waiting in tests: for a condition, with a limit, never for a time. */

/** Asks until the answer is neither false, null nor undefined, and returns it. Rejects after the limit, naming `what`. */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { readonly limitMs: number; readonly what: string; readonly everyMs?: number },
): Promise<Exclude<T, false | null | undefined>> {
  const until = performance.now() + options.limitMs;
  for (;;) {
    const answer = await condition();
    if (answer !== false && answer !== null && answer !== undefined) return answer as Exclude<T, false | null | undefined>;
    if (performance.now() > until) throw new Error(`${options.what}: not within ${options.limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, options.everyMs ?? 20));
  }
}
