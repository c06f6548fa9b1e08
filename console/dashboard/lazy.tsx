/** Pages whose script is loaded when somebody goes there: charts are half of all that there is. */
import type { ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';

export type LazyComponent<Props> = ((props: Props & object) => preact.JSX.Element) & { /** Loads it ahead of its use; what fails is tried again then. */ readonly fetch: () => void };

/** What `load` resolves with; busy until then. Where it cannot be had it says so: the daemon is away, or of another release by now. */
export function lazily<Props>(load: () => Promise<ComponentType<Props>>): LazyComponent<Props> {
  let Found: ComponentType<Props> | null = null;
  const take = async (): Promise<void> => { Found ??= await load(); };
  function Lazy(props: Props & object) {
    const [isFailed, setFailed] = useState(false);
    const [, setLoaded] = useState(false);
    useEffect(() => { take().then(() => setLoaded(true), () => setFailed(true)); }, []);
    if (Found !== null) return <Found {...props} />;
    return isFailed ? <p role="alert">This page cannot be loaded. <button type="button" class="plain" onClick={() => location.reload()}>Load anew</button></p> : <p aria-busy="true">Loading</p>;
  }
  return Object.assign(Lazy, { fetch: () => { take().catch(() => undefined); } });
}
