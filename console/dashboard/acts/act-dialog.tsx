/**
 * One way for every act: a dialog that says what will happen before it asks, waits without hiding what goes on, and says how it ended. An
 * act is sent with a key of its own, so that asking again after a lost connection does it once.
 */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatSpan } from '../../render/units.ts';
import { call, messageOf } from '../api.ts';
import { nowMs } from '../live.ts';

export interface Act {
  readonly title: string;
  readonly method?: 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  /** On the button: a verb. */
  readonly verb: string;
  /** It cannot be taken back: its name has to be typed. */
  readonly typed?: string;
  readonly isGrave?: boolean;
  /** While it is under way, what is happening now. */
  readonly progress?: () => ComponentChildren;
  /** Of the answer, for people. */
  readonly tell: (answer: unknown) => ComponentChildren;
}

interface ActDialogProps {
  readonly act: Act;
  readonly children?: ComponentChildren;
  /** Something is missing that has to be said first. */
  readonly isBlocked?: boolean;
  readonly onClose: () => void;
}

type Course = { readonly state: 'asking' } | { readonly state: 'under way'; readonly sinceMs: number } | { readonly state: 'done'; readonly answer: unknown; readonly tookMs: number } | { readonly state: 'failed'; readonly why: string };

export function ActDialog({ act, children, isBlocked, onClose }: ActDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const key = useRef(crypto.randomUUID());
  const [course, setCourse] = useState<Course>({ state: 'asking' });
  const [typed, setTyped] = useState('');
  useEffect(() => { dialog.current!.showModal(); }, []);
  const isReady = isBlocked !== true && (act.typed === undefined || typed.trim() === act.typed);
  const run = async (): Promise<void> => {
    const sinceMs = Date.now();
    setCourse({ state: 'under way', sinceMs });
    try {
      const answer = await call<unknown>(act.path, { method: act.method ?? 'POST', key: key.current, ...(act.method === 'DELETE' ? {} : { body: act.body ?? {} }) });
      setCourse({ state: 'done', answer, tookMs: Date.now() - sinceMs });
    } catch (error) {
      setCourse({ state: 'failed', why: messageOf(error) });
    }
  };
  const again = (): void => {
    // What was refused may be asked once more as something new.
    key.current = crypto.randomUUID();
    setCourse({ state: 'asking' });
  };
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="act-title">
      <article>
        <header>
          <h2 id="act-title">{act.title}</h2>
        </header>
        {course.state === 'asking' && (
          <form method="dialog" onSubmit={(event) => { event.preventDefault(); if (isReady) void run(); }}>
            {children}
            {act.typed !== undefined && (
              <label>Type <strong>{act.typed}</strong> to confirm
                <input name="confirm" value={typed} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={({ currentTarget }) => setTyped(currentTarget.value)} />
              </label>
            )}
            <footer>
              <button type="button" class="secondary" onClick={() => dialog.current!.close()}>Cancel</button>
              <button type="submit" class={act.isGrave === true ? 'grave' : ''} disabled={!isReady}>{act.verb}</button>
            </footer>
          </form>
        )}
        {course.state === 'under way' && (
          <div role="status">
            <progress />
            <p>Under way for {formatSpan(Math.max(0, nowMs.value - course.sinceMs))}. It goes on when this page is closed.</p>
            {act.progress?.()}
          </div>
        )}
        {course.state === 'done' && (
          <div role="status">
            <p class="good-text">Done, in {formatSpan(course.tookMs)}.</p>
            {act.tell(course.answer)}
            <footer><button type="button" autofocus onClick={() => dialog.current!.close()}>Close</button></footer>
          </div>
        )}
        {course.state === 'failed' && (
          <div role="alert">
            <p class="bad-text">{course.why}</p>
            <footer>
              <button type="button" class="secondary" onClick={() => dialog.current!.close()}>Close</button>
              <button type="button" onClick={again}>Back</button>
            </footer>
          </div>
        )}
      </article>
    </dialog>
  );
}
