import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { GuestStatus } from '../../daemon/supervisor/guest-status.ts';

const facts = { name: 'web1', groupId: 'aa'.repeat(16), qmpPath: '/q', target: 'bravo', rpoMs: 1000 };

/** Of the status after `point`s were cut, one each second from second 1 on. */
function afterCuts(points: number): { readonly status: GuestStatus; readonly report: () => ReturnType<GuestStatus['report']> } {
  let nowMs = 0;
  const status = new GuestStatus({ ...nodeClock, monotonicMs: () => nowMs, nowMs: () => nowMs });
  for (let point = 1; point <= points; point++) {
    nowMs = point * 1000;
    status.cut({ term: 1, point }, nowMs, nowMs);
  }
  nowMs += 100;
  return { status, report: () => status.report(facts, null) };
}

t.test('a point that is applied before its acknowledgement was taken up counts as acknowledged', async (t) => {
  const { status, report } = afterCuts(3);
  status.acknowledged({ term: 1, point: 1 });
  status.applied({ term: 1, point: 1 });
  status.applied({ term: 1, point: 2 });
  t.match(report(), { newestPoint: { term: 1, point: 2, cutAtMs: 2000 }, clocks: { newestPointMs: 1100, appliedMs: 1100 }, waiting: { unacknowledgedPoints: 1, unappliedPoints: 1 } });
  status.acknowledged({ term: 1, point: 2 });
  t.match(report(), { newestPoint: { point: 2 }, rpo: { samples: 1 } }, 'once');
  status.acknowledged({ term: 1, point: 3 });
  t.match(report(), { newestPoint: { point: 3 }, clocks: { newestPointMs: 100, appliedMs: 1100 } });
});

t.test('points that are applied later leave the newest acknowledged one as it is', async (t) => {
  const { status, report } = afterCuts(3);
  for (const point of [1, 2, 3]) status.acknowledged({ term: 1, point });
  status.applied({ term: 1, point: 1 });
  t.match(report(), { newestPoint: { point: 3 }, clocks: { appliedMs: 2100 }, waiting: { unacknowledgedPoints: 0, unappliedPoints: 2 } });
});
