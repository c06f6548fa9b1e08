/** Which guests can be stopped before their lease ends; a program stands in for `virsh`, and says what libvirt would of a domain. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { whyUnstoppable } from '../../daemon/lease/own-power.ts';

const domain = (more: string): string => `<domain type="qemu" id="3" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"><name>web1</name><uuid>5b0d6f4e-0000-4000-8000-000000000001</uuid>${more}</domain>`;

t.test('through libvirt alone a guest is not stopped in time, over a socket it is', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ai-op-'));
  const { PATH } = process.env;
  t.teardown(async () => { process.env['PATH'] = PATH; await rm(folder, { recursive: true }); });
  const answer = (xml: string): Promise<void> => writeFile(join(folder, 'xml'), xml);
  await writeFile(join(folder, 'virsh'), `#!/bin/sh\nexec cat ${folder}/xml\n`);
  await chmod(join(folder, 'virsh'), 0o700);
  process.env['PATH'] = `${folder}:${PATH}`;

  await answer(domain(''));
  t.match(await whyUnstoppable(['/run/db.qmp', 'libvirt://web1']), /^libvirt:\/\/web1 .*add-monitor libvirt:\/\/web1/, 'also as one of several');
  await answer(domain('<qemu:commandline><qemu:arg value="-qmp"/><qemu:arg value="unix:/var/lib/libvirt/qemu/web1.afterimage.qmp,server=on,wait=off"/></qemu:commandline>'));
  t.equal(await whyUnstoppable(['libvirt://web1']), null);
  t.equal(await whyUnstoppable(['/run/db.qmp', 'pve://101']), null, 'others have a socket of ours or are not followed');
});
