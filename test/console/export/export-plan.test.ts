/** Names of exports and what qemu-img is told and says. */
import fc from 'fast-check';
import t from 'tap';
import { exportFormats, nbdsUri, nbdUri, planExport, progressIn, reachableAddress } from '../../../console/export/export-plan.ts';
import { described } from '../fixed-reports.ts';

t.test('files: one for each disk, under a name that every file system takes', async (t) => {
  const names = (...disks: string[]): string[] => planExport({ ...described, disks: disks.map((name, disk) => ({ disk, name, sizeBytes: 1, exportName: '' })) }, 'vmdk').disks.map(({ fileName }) => fileName);
  t.equal(planExport(described, 'qcow2').name, 'web-1.2-qcow2');
  t.strictSame(names('vda', '/machine/peripheral/data/virtio-backend', 'a b', 'a:b', '..', '', 'vda'), ['vda.vmdk', 'machine_peripheral_data_virtio-backend.vmdk', 'a_b.vmdk', 'disk3-a_b.vmdk', 'disk4.vmdk', 'disk5.vmdk', 'disk6-vda.vmdk']);
  fc.assert(fc.property(fc.array(fc.string({ maxLength: 300 }), { maxLength: 20 }), (disks) => {
    const found = names(...disks);
    return found.every((name) => /^[\w-][\w.-]*\.vmdk$/.test(name) && name.length < 200) && found.length === disks.length;
  }));
  // Two disks never share a file, whatever they are called, also when one is named as another one's stand-in would be.
  fc.assert(fc.property(fc.array(fc.constantFrom('a', 'disk1', 'disk1-a', 'disk2-a', 'disk3', '', '/', 'a:', 'disk4-disk1'), { maxLength: 8 }), (disks) => new Set(names(...disks)).size === disks.length));
  t.ok(exportFormats.includes('vhdx'));
});

t.test('URIs', async (t) => {
  t.equal(nbdUri('/srv/a b/points.sock', 'web/drive0@1.2'), 'nbd+unix:///web/drive0@1.2?socket=%2Fsrv%2Fa%20b%2Fpoints.sock');
  t.equal(nbdUri('/s', 'web/bus/0@before 50 %?'), 'nbd+unix:///web/bus/0@before%2050%20%25%3F?socket=%2Fs');
  t.equal(nbdsUri(reachableAddress('0.0.0.0:10809', 'bravo.example.org:7228'), 'web/0@1.2'), 'nbds://bravo.example.org:10809/web/0@1.2');
  t.equal(reachableAddress('[::]:10809', '[2001:db8::1]:7228'), '[2001:db8::1]:10809');
  t.equal(reachableAddress('192.0.2.9:10809', 'bravo:7228'), '192.0.2.9:10809');
});

t.test('progress', async (t) => {
  t.equal(progressIn('    (0.00/100%)\r    (12.50/100%)\r'), 0.125);
  t.equal(progressIn('    (100.00/100%)\r'), 1);
  t.equal(progressIn('Images are identical.\n'), null);
});
