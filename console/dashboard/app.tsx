/** The dashboard of either role: draws what the live report says, and nothing that it does not. */
import { render } from 'preact';
import { follow, report } from './live.ts';
import { AuditPage } from './pages/audit-page.tsx';
import { Connection } from './pages/connection.tsx';
import { lazily } from './lazy.tsx';
import { Overview } from './pages/overview.tsx';
import { SignIn } from './pages/sign-in.tsx';
import { SourcePage } from './pages/source-page.tsx';
import { place } from './route.ts';
import { signOut, token } from './session.ts';

const GroupPage = lazily(async () => (await import('./pages/group-page.tsx')).GroupPage);
/** By then the overview has been drawn, ms. */
const fetchAheadMs = 2000;

function App() {
  if (token.value === null) return <SignIn />;
  const now = report.value;
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => { event.preventDefault(); document.querySelector<HTMLElement>('h1')?.focus(); }}>To the content</a>
      <header class="top container">
        <a class="brand" href="#/">Afterimage</a>
        <span class="quiet">{now === null ? '' : now.role === 'target' ? `target ${now.address}` : 'source'}</span>
        <Connection />
        <nav aria-label="Main"><a href="#/">{now?.role === 'source' ? 'Guests' : 'Groups'}</a><a href="#/audit">Audit</a><button type="button" class="plain" onClick={signOut}>Sign out</button></nav>
      </header>
      <main id="content" class="container">{now === null ? <p aria-busy="true">Waiting for the daemon</p> : <Page />}</main>
    </>
  );
}

function Page() {
  const now = report.value!;
  const where = place.value;
  if (where.page === 'audit') return <AuditPage />;
  if (now.role === 'source') return <SourcePage report={now} />;
  return where.page === 'group' ? <GroupPage report={now} name={where.group} /> : <Overview report={now} />;
}

// Asked for before anything is drawn: the answer is on its way meanwhile.
follow();
setTimeout(GroupPage.fetch, fetchAheadMs);
render(<App />, document.querySelector('#app')!);
