/** Runs asynchronous work with a limit on how much is under way. The first failure stops the taking, and is what `drain` rejects with. */
export class BoundedTasks {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | null = null;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves once the work has been taken. */
  async add(work: () => Promise<void>): Promise<void> {
    while (this.#running.size >= this.#limit) await Promise.race(this.#running);
    if (this.#failure !== null) throw this.#failure.error;
    const running: Promise<void> = work().catch((error: unknown) => { this.#failure ??= { error }; }).finally(() => { this.#running.delete(running); });
    this.#running.add(running);
  }

  /** Resolves when nothing is under way any more, well or not. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Resolves when all of it is done. */
  async drain(): Promise<void> {
    await this.settle();
    if (this.#failure !== null) throw this.#failure.error;
  }
}
