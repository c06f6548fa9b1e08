/**
 * Where the demo is watched: one line for each step that is done, and one live line beneath that is overwritten as it
 * changes. Where there is no terminal the live line is only written every few seconds, as a line of its own.
 */
import type { WriteStream } from 'node:tty';
import { stripVTControlCharacters } from 'node:util';

import { tint, type Look } from '../../console/render/look.ts';
import { lookOf } from '../../console/terminal.ts';

export interface Screen {
  readonly look: Look;
  title(text: string): void;
  /** What an operator would type. */
  typed(command: string): void;
  done(label: string, text: string): void;
  bad(text: string): void;
  /** Overwrites the last live line. */
  live(label: string, text: string): void;
  /** The live line is as it shall stay. */
  end(): void;
}

/** Between two writings of a live line where it cannot be overwritten. */
const plainEveryMs = 3_000;
const labelWidth = 12;

export function openScreen(stream: WriteStream): Screen {
  const look = lookOf(stream);
  const isLive = stream.isTTY;
  let hasLive = false;
  let plainAtMs = Number.NEGATIVE_INFINITY;

  const clear = (): void => {
    if (hasLive && isLive) stream.write('\r\x1b[2K');
    hasLive = false;
  };
  const line = (text: string): void => {
    clear();
    stream.write(`${text}\n`);
    plainAtMs = Number.NEGATIVE_INFINITY;
  };
  const labelled = (label: string, text: string): string => `  ${tint(look, 'quiet', label.padEnd(labelWidth))}${text}`;

  return {
    look,
    title: (text) => line(`\n${tint(look, 'strong', text)}\n`),
    typed: (command) => line(`\n  ${tint(look, 'quiet', '$')} ${tint(look, 'strong', command)}`),
    done: (label, text) => line(labelled(label, text)),
    bad: (text) => line(`  ${tint(look, 'bad', text)}`),
    live(label, text) {
      const whole = labelled(label, text);
      if (isLive) {
        clear();
        // A line that wraps could not be taken back; one without colours can be cut anywhere.
        const plain = stripVTControlCharacters(whole);
        stream.write(plain.length < look.width ? whole : plain.slice(0, look.width - 1));
        hasLive = true;
      } else if (performance.now() - plainAtMs > plainEveryMs) {
        stream.write(`${whole}\n`);
        plainAtMs = performance.now();
      }
    },
    end() {
      if (hasLive && isLive) stream.write('\n');
      hasLive = false;
    },
  };
}
