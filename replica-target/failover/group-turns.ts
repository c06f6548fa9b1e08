/** One act at a time for each group, in the order in which they were asked for: what is asked twice must not start two guests. */
export class GroupTurns {
  readonly #last = new Map<string, Promise<unknown>>();

  async take<T>(groupId: string, act: () => Promise<T>): Promise<T> {
    const before = this.#last.get(groupId) ?? Promise.resolve();
    const turn = before.then(act, act);
    this.#last.set(groupId, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(groupId) === turn) this.#last.delete(groupId);
    }
  }
}
