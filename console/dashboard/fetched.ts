/** Something that is asked of the daemon when a component is shown, and again when what it hangs on changes; older answers never replace newer ones. */
import { useEffect, useState } from 'preact/hooks';
import { call, messageOf, Problem } from './api.ts';

export interface Fetched<T> { readonly value: T | null; readonly trouble: string | null; readonly isLoading: boolean; /** The token is of too small a scope: asking again is in vain. */ readonly isRefused: boolean; readonly again: () => void }

export function useFetched<T>(path: string | null, ...hangsOn: readonly unknown[]): Fetched<T> {
  const [state, setState] = useState<{ readonly value: T | null; readonly trouble: string | null; readonly isLoading: boolean; readonly isRefused: boolean }>({ value: null, trouble: null, isLoading: path !== null, isRefused: false });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return setState({ value: null, trouble: null, isLoading: false, isRefused: false });
    const stop = new AbortController();
    setState((before) => ({ ...before, isLoading: true }));
    call<T>(path, { signal: stop.signal }).then(
      (value) => { if (!stop.signal.aborted) setState({ value, trouble: null, isLoading: false, isRefused: false }); },
      (error: unknown) => { if (!stop.signal.aborted) setState((before) => ({ ...before, trouble: messageOf(error), isLoading: false, isRefused: error instanceof Problem && error.code === 'OPERATOR_SCOPE' })); },
    );
    return () => stop.abort();
  }, [path, turn, ...hangsOn]);
  return { ...state, again: () => setTurn((now) => now + 1) };
}
