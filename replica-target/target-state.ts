/**
 * What a target must know after a restart, beside its groups: who it is, its key and certificate, and the secrets of the
 * pairings it has handed out. Private files (host/node/json-file.ts).
 */
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, replaceJson } from '../host/node/json-file.ts';
import { preparePrivateFolder } from '../host/node/private-folder.ts';

const targetIdentity = z.object({ targetId: z.string().regex(/^[0-9a-f]{32}$/), key: z.string().min(1), cert: z.string().min(1) });
const pairings = z.object({ pairings: z.array(z.object({ secretHex: z.string().regex(/^[0-9a-f]{64}$/), issuedAtMs: z.number() })) });

export type TargetIdentity = z.infer<typeof targetIdentity>;

export class TargetState {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Folder of the groups (store). */
  get groupsFolder(): string {
    return join(this.#folder, 'groups');
  }

  /** Fault FOLDER_UNSAFE. */
  async prepare(): Promise<void> {
    for (const folder of [this.#folder, this.groupsFolder]) await preparePrivateFolder(folder);
  }

  /** Made by `make` on the first start. */
  async identity(make: () => Promise<TargetIdentity>): Promise<TargetIdentity> {
    const path = join(this.#folder, 'target.json');
    const known = await readJson(path, targetIdentity);
    if (known !== null) return known;
    const made = await make();
    await replaceJson(path, made);
    return made;
  }

  async secrets(): Promise<Buffer[]> {
    return (await this.#pairings()).map((pairing) => Buffer.from(pairing.secretHex, 'hex'));
  }

  async addSecret(secret: Buffer, issuedAtMs: number): Promise<void> {
    const known = await this.#pairings();
    await replaceJson(join(this.#folder, 'pairings.json'), { pairings: [...known, { secretHex: secret.toString('hex'), issuedAtMs }] });
  }

  async #pairings(): Promise<z.infer<typeof pairings>['pairings']> {
    return (await readJson(join(this.#folder, 'pairings.json'), pairings))?.pairings ?? [];
  }
}
