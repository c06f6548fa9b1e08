/**
 * A YAML text together with where each of its values stands, so that every complaint about a value can name line and
 * column. It takes the plain part of YAML only: one document, a mapping, text keys, no aliases and no tags of anybody's own, which a
 * config of a few lines does not need and which can make a small file large.
 */
import { isMap, isNode, isScalar, LineCounter, parseDocument, visit, type Document } from 'yaml';

export interface ConfigProblem {
  /** From 1. */
  readonly line: number;
  readonly column: number;
  /** `spool.budget`; empty for the document as a whole. */
  readonly key: string;
  readonly message: string;
}

export type KeyPath = readonly (string | number)[];

export class YamlSource {
  /** What YAML itself has to say against the text; with any, `value` means nothing. */
  readonly problems: readonly ConfigProblem[];
  readonly value: unknown;
  readonly #lines = new LineCounter();
  readonly #document: Document.Parsed;

  constructor(text: string) {
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, stringKeys: true, uniqueKeys: true, strict: true });
    // A warning says that YAML understood something other than what is written (an unknown tag, for one).
    const problems = [...this.#document.errors, ...this.#document.warnings].map((error) => this.#problem(error.pos[0], [], error.message.split('\n')[0]!));
    this.problems = problems.length > 0 ? problems : this.#refusePlainNot();
    this.value = this.problems.length > 0 ? undefined : this.#document.toJS();
  }

  /** A problem with the value at `path`; where there is none, with the mapping that lacks it. */
  at(path: KeyPath, message: string): ConfigProblem {
    for (let known = path.length; known > 0; known--) {
      const node = this.#document.getIn(path.slice(0, known), true);
      if (!isNode(node) || node.range == null) continue;
      // A value that is missing within a mapping is shown at the mapping's key, not at its first entry.
      if (known === path.length) return this.#problem(node.range[0], path, message);
      return this.atKey(path.slice(0, known), message, path);
    }
    return this.#problem(0, path, message);
  }

  /** A problem with the key itself of the entry at `path`. `shown`: the key path that is named. */
  atKey(path: KeyPath, message: string, shown: KeyPath = path): ConfigProblem {
    const parent = path.length === 1 ? this.#document.contents : this.#document.getIn(path.slice(0, -1), true);
    const name = path.at(-1);
    if (isMap(parent)) {
      const key = parent.items.map((item) => item.key).find((candidate) => isScalar(candidate) && candidate.value === name);
      if (isScalar(key) && key.range != null) return this.#problem(key.range[0], shown, message);
    }
    return this.at(path.slice(0, -1), message);
  }

  #refusePlainNot(): ConfigProblem[] {
    const problems: ConfigProblem[] = [];
    visit(this.#document, {
      Alias: (_key, node) => { problems.push(this.#problem(node.range?.[0] ?? 0, [], 'expected the value itself, found an alias')); },
    });
    if (problems.length === 0 && !isMap(this.#document.contents)) {
      problems.push(this.#problem(0, [], 'expected keys and values such as `role: source`'));
    }
    return problems;
  }

  #problem(offset: number, path: KeyPath, message: string): ConfigProblem {
    const { line, col } = this.#lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1), key: path.join('.'), message };
  }
}
