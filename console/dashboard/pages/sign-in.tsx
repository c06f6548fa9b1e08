/** Asks for the operator's token. */
import { useState } from 'preact/hooks';
import { token } from '../session.ts';
import { trouble } from '../live.ts';

export function SignIn() {
  const [given, setGiven] = useState('');
  return (
    <main class="container sign-in">
      <h1>Afterimage</h1>
      <form onSubmit={(event) => { event.preventDefault(); trouble.value = ''; token.value = given.trim() || null; }}>
        <label>Operator’s token
          <input type="password" name="token" autocomplete="off" required value={given} onInput={({ currentTarget }) => setGiven(currentTarget.value)} />
          <small>On this daemon’s host: <code>afterimage token create NAME --scope read</code></small>
        </label>
        {trouble.value !== '' && <p role="alert" class="bad-text">{trouble.value}</p>}
        <button type="submit">Sign in</button>
      </form>
    </main>
  );
}
