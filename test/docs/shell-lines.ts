/** Reads the lines of code blocks in Markdown that call `afterimage`, as words. Not a shell: quotes, comments, pipes and `$(…)` are all it knows. */

export interface ShellLine { readonly line: number; readonly text: string; readonly words: readonly string[] }

export function shellLines(markdown: string): ShellLine[] {
  let isBlock = false;
  return markdown.split('\n').flatMap((text, at): ShellLine[] => {
    if (/^\s*```/.test(text)) {
      isBlock = !isBlock;
      return [];
    }
    if (!isBlock) return [];
    // With or without a prompt: `$`, `target#`, `anywhere$`.
    const inner = [...text.matchAll(/\$\((afterimage [^)]*)\)/g)].map(([, called]) => called!);
    const outer = /^\s*(?:[\w-]*[$#]\s+)?(?:[A-Z_]+=\S+\s+)*(?:sudo\s+)?(afterimage\s.*)$/.exec(text.replaceAll(/\$\([^)]*\)/g, 'VALUE'))?.[1];
    return [...outer === undefined ? [] : [outer], ...inner].map((called) => ({ line: at + 1, text, words: wordsOf(called).slice(1) }));
  });
}

/** Up to the first comment, pipe, redirection or other command. */
export function wordsOf(text: string): string[] {
  const words: string[] = [];
  for (const [, double, single, plain, end] of text.matchAll(/"([^"]*)"|'([^']*)'|((?:[^\s"'|;<>&]|(?<=\S)#)+)|([|;<>&])/g)) {
    if (end !== undefined) break;
    if (plain !== undefined && plain.startsWith('#')) break;
    words.push(double ?? single ?? plain!);
  }
  return words;
}
