/** A daemon that pauses the guests at the sockets that it is given, as for a cut, and does nothing more: it waits to be killed. Not a suite. */
import { PauseGuard, PauseWatchdog } from '../../daemon/joint/pause-guard.ts';
import { PausedNotes } from '../../daemon/joint/paused-notes.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';

const [folder, ...paths] = process.argv.slice(2);
const notes = new PausedNotes(folder!);
const guard = new PauseGuard('pair', notes, new PauseWatchdog(notes.folder));
const guests = await Promise.all(paths.map((path) => connectQmp(path)));
await guard.paused(paths.map((qmpPath, at) => ({ name: `g${at}`, qmpPath })));
for (const qmp of guests) await qmp.execute('stop');
process.stdout.write('paused\n');
setInterval(() => undefined, 1000);
