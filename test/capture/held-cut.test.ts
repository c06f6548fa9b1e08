/**
 * A cut for which somebody holds the guest still: when the hold begins and ends around the instant, what counts that the guest
 * wrote out meanwhile, and that no round is held. On a storage daemon; that a real guest freezes is test/e2e/app-points.test.ts.
 */
import { execFileSync } from 'node:child_process';
import t from 'tap';
import type { CutHold } from '../../daemon/capture/capture.ts';
import { isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { makeCapture, plantOn } from './support/captures.ts';
import { difference, Replica } from './support/replica.ts';
import { makeDisks, shortFolder, startStandIn, type StandIn } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

function write(standIn: StandIn, pattern: number, fromMib: number, mibs: number): void {
  execFileSync('qemu-io', ['-f', 'raw', '-c', `write -P ${pattern} ${fromMib * mib} ${mibs * mib}`, `nbd+unix:///d0?socket=${standIn.nbdPath}`]);
}

/** Writes down what happens to it, among the commands that QEMU gets. */
class NotedHold implements CutHold {
  readonly #seen: string[];
  readonly #onBegin: () => void;
  #released: Promise<'app'> | null = null;

  constructor(seen: string[], onBegin: () => void = () => undefined) {
    this.#seen = seen;
    this.#onBegin = onBegin;
  }

  async begin(): Promise<void> {
    this.#seen.push('HOLD');
    this.#onBegin();
  }

  release(isCut: boolean): Promise<'app'> {
    if (this.#released === null) this.#seen.push(isCut ? 'GO AFTER CUT' : 'GO');
    this.#released ??= Promise.resolve('app');
    return this.#released;
  }
}

t.test('held from before the last count until the transaction has returned; the kind is the hold’s', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 96 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path });
  await capture.connect();
  await plantOn(standIn);
  await capture.reconcile(point(0));
  write(standIn, 1, 0, 1);
  proxy.seen.length = 0;
  await proxy.arm(standIn.disks);
  // Far more than the room for what a guest writes between count and cut.
  const delta = await capture.cut(point(0), point(1), 'crash', new NotedHold(proxy.seen, () => write(standIn, 2, 10, 64)));
  t.equal(delta.kind, 'app');
  t.equal(delta.changedBytes, 65 * mib, 'what was written out counts');
  const steps = proxy.seen.filter((name) => ['HOLD', 'transaction', 'GO', 'GO AFTER CUT', 'blockdev-add', 'blockdev-del', 'job-dismiss'].includes(name));
  t.match(steps.slice(0, 4), ['HOLD', 'blockdev-add', 'transaction', 'GO AFTER CUT']);
  t.ok(steps.indexOf('blockdev-del') > 3, 'it goes on while QEMU copies');
  t.equal(steps.filter((step) => step.startsWith('GO')).length, 1);
  const replica = new Replica(folder, 1);
  const [whole] = await proxy.collect();
  await replica.apply(delta);
  t.equal(difference(whole!, replica.path(0)), null);
  await delta.end('acknowledged');

  // A cut that comes to nothing lets go as well.
  proxy.onCommand = ({ execute }) => (execute === 'transaction' ? 'die' : 'pass');
  proxy.seen.length = 0;
  await t.rejects(capture.cut(point(1), point(2), 'crash', new NotedHold(proxy.seen)), { code: 'QMP_CLOSED' });
  t.equal(proxy.seen.at(-1), 'GO');
});

t.test('no round is held: not at all when it is known, and let go when it turns out', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 128 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path, budgetBytes: 40 * mib });
  await capture.connect();
  await plantOn(standIn);
  await capture.reconcile(point(0));
  write(standIn, 1, 0, 1);
  const cut = () => capture.cut(point(0), point(1), 'crash', new NotedHold(proxy.seen, () => write(standIn, 2, 0, 100))).catch((error: unknown) => {
    if (isFault(error, 'DELTA_BROKEN')) return null; // a margin that was too small: the next is larger
    throw error;
  });
  proxy.seen.length = 0;
  const turned = await cut();
  t.match(turned, { isRound: true });
  t.ok(proxy.seen.indexOf('GO') > proxy.seen.indexOf('HOLD') && proxy.seen.indexOf('GO') < proxy.seen.indexOf('transaction'), 'let go before the copy');
  await turned!.end('dropped');
  proxy.seen.length = 0;
  const known = await cut();
  t.match(known, { isRound: true });
  t.notOk(proxy.seen.includes('HOLD'));
  await known!.end('dropped');
  await capture.release();
});
