/** Names that are paths, or look like others: none of them comes into a path, and none stands for another. */
import t from 'tap';
import { requestBodies } from '../../console/control-api.ts';
import { planExport } from '../../console/export/export-plan.ts';
import { printable } from '../../console/render/units.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { decodeMessage, safeName, sourceMessage, targetMessage } from '../../journal/wire.ts';
import { NbdExports } from '../../replica-target/points/nbd-exports.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { described } from '../console/fixed-reports.ts';
import { announcement, groupId, sourceId } from '../ingest/loopback.ts';
import { groups, openOn } from '../store/store-rig.ts';

const names: Readonly<Record<string, string>> = {
  'the folder itself': '.', 'the folder above': '..', 'a way up': '../../etc/cron.d/x', 'a folder': 'a/b', 'an absolute path': '/etc/passwd', 'another system’s folder': 'a\\b',
  'a hidden file': '.ssh', 'an option': '-rf', nothing: '', 'a zero byte': 'web\0.json', 'a line’s end': 'web\n', 'a blank': 'web 1', 'an escape': 'web\u001b[2J',
  'wide letters': 'ｗｅｂ', 'a letter that looks like another': 'wеb', 'an accent in two parts': 'cafe\u0301', 'an accent in one': 'café', 'right to left': 'web\u202e1', 'no width': 'we\u200bb',
  'half a letter': 'web\ud800', 'a way up, coded': '%2e%2e%2f', 'a template': '${HOME}', 'more than a file name holds': 'x'.repeat(64),
};

for (const [what, name] of Object.entries(names)) {
  t.test(`a name that is ${what}`, async (t) => {
    t.notOk(safeName.safeParse(name).success);
    t.equal(decodeMessage(sourceMessage, JSON.stringify({ t: 'announce', ...announcement({ name }) })), undefined, 'is none of a group');
    t.equal(decodeMessage(sourceMessage, JSON.stringify({ t: 'hello', versions: [1], sourceId, sourceName: name, nonce: '05'.repeat(32) })), undefined, 'is none of a source');
    t.equal(decodeMessage(targetMessage, JSON.stringify({ t: 'challenge', version: 1, targetId: sourceId, targetName: name, nonce: '05'.repeat(32) })), undefined, 'is none of a target, whose pairing is a file of that name');
    t.notOk(requestBodies.protect.safeParse({ name, qmpPath: '/q', rpoMs: 1000 }).success, 'is none of a guest');
    t.equal(decodeMessage(sourceMessage, JSON.stringify({ t: 'announce', ...announcement({ group: name }) })), undefined, 'and no id, which is a folder’s name');
    t.notMatch(printable(name), /[\0-\u001f\u007f\u202e]/, 'shown to a person it moves nothing on the screen');
    const { disks, name: folder } = planExport({ ...described, disks: [{ disk: 0, name, sizeBytes: 1, exportName: '' }] }, 'raw');
    t.match(`${folder}/${disks[0]!.fileName}`, /^[\w.-]+\/[\w-][\w.-]*\.raw$/, 'a disk of that name is exported into a file of the export’s folder');
    const exports = new NbdExports({ all: () => [], find: () => null }, nodeClock, () => undefined);
    await t.rejects(exports.open(`${name}/0@newest`), { code: /^(GROUP|POINT)_UNKNOWN$/ }, 'no export');
  });
}

t.test('two groups whose names differ in nothing but capitals, or that are reserved elsewhere, have folders of their own', async (t) => {
  const disk = new SimulatedDisk();
  await disk.makeFolder(groups);
  const registry = await openOn(disk);
  t.teardown(() => registry.close());
  const all = ['web', 'Web', 'WEB', 'con', 'nul', 'web.', 'lock', 'group.json'];
  for (const [index, name] of all.entries()) await registry.announce(sourceId, announcement({ name, group: `${index}`.padStart(2, '0').repeat(16) }));
  t.same(registry.groups().map(({ groupId: id }) => registry.find(id)!.report().name).sort(), [...all].sort());
  for (const name of all) t.equal(registry.find(name)!.report().name, name, 'each is found by exactly its name');
  await t.rejects(registry.announce('99'.repeat(16), announcement({ name: 'web', group: groupId })), { code: 'GROUP_FOREIGN' }, 'a name that another source has is not given twice');
});
