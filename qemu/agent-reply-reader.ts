/**
 * Takes the bytes that QEMU's guest agent sends and cuts them into replies. It knows the stream's form alone: one JSON text a
 * line, and the byte 0xFF, which stands in no UTF-8 text, ahead of the reply to `guest-sync-delimited` (QEMU Guest Agent Protocol
 * Reference): what was begun before it is void. What comes out are parsed objects and sentinels; what they answer is
 * guest-agent.ts's matter. A guest is not trusted: no more than one line's limit is held, whatever it sends.
 */

/** `guest-info` of QEMU 10 has about 8 KiB. */
export const agentLineBytesMax = 256 * 1024;

export type AgentItem =
  | { readonly kind: 'sentinel' }
  | { readonly kind: 'reply'; readonly reply: Readonly<Record<string, unknown>> }
  /** A line that is no JSON object, or longer than the limit. */
  | { readonly kind: 'garbage'; readonly text: string };

const sentinel = 0xff;
const lineEnd = 0x0a;

export class AgentReplyReader {
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** Within a line that was too long: the rest of it is thrown away. */
  #isSkipping = false;

  push(chunk: Buffer, onItem: (item: AgentItem) => void): void {
    let from = 0;
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at];
      if (byte !== sentinel && byte !== lineEnd) continue;
      const piece = chunk.subarray(from, at);
      from = at + 1;
      if (byte === sentinel) {
        this.#forget();
        onItem({ kind: 'sentinel' });
      } else this.#end(piece, onItem);
    }
    this.#hold(chunk.subarray(from), onItem);
  }

  #end(piece: Buffer, onItem: (item: AgentItem) => void): void {
    this.#hold(piece, onItem);
    const isSkipped = this.#isSkipping;
    const text = Buffer.concat(this.#held).toString('utf8');
    this.#forget();
    if (isSkipped || text.trim() === '') return;
    const reply = parseObject(text);
    onItem(reply === null ? { kind: 'garbage', text: text.slice(0, 100) } : { kind: 'reply', reply });
  }

  #hold(piece: Buffer, onItem: (item: AgentItem) => void): void {
    if (piece.length === 0 || this.#isSkipping) return;
    if (this.#heldBytes + piece.length > agentLineBytesMax) {
      const text = Buffer.concat(this.#held).toString('utf8', 0, 100);
      this.#forget();
      this.#isSkipping = true;
      return onItem({ kind: 'garbage', text });
    }
    // A copy: the socket's buffer is not kept for a few bytes of it.
    this.#held.push(Buffer.from(piece));
    this.#heldBytes += piece.length;
  }

  #forget(): void {
    this.#held = [];
    this.#heldBytes = 0;
    this.#isSkipping = false;
  }
}

function parseObject(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Readonly<Record<string, unknown>> : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
