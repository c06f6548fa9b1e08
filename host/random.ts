/** Randomness as a seam. */
export interface Random {
  bytes(count: number): Buffer;
  /** In [0, 1). For jitter, not for secrets. */
  fraction(): number;
}
