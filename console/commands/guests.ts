/** Commands of a source: protect, unprotect, mark, pause, resume, resync, capture, rate. */
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Argument, InvalidArgumentError, Option, type Command } from 'commander';
import type { CaptureChoice } from '../../daemon/capture/capture.ts';
import type { GroupMember } from '../../daemon/operations.ts';
import type { GuestReport } from '../../daemon/report.ts';
import { safeName } from '../../journal/wire.ts';
import { formatPlace, libvirtUriDefault, parsePlace } from '../../qemu/guest-place.ts';
import { readDurationMs, readRate } from '../config/quantity.ts';
import { captureChoices, markMsMax, pointLabel, rpoMsMax, rpoMsMin } from '../control-api.ts';
import type { SourceClient } from '../control-client.ts';
import { UsageError } from '../exit-code.ts';
import { openSource, type DaemonOption } from '../open-client.ts';
import { formatMarked } from '../render/marked.ts';
import { formatBytes, formatRate, printable } from '../render/units.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { withDaemon } from './with-config.ts';

/** How long the first report of a guest's disks is waited for, ms. */
const disksMsMax = 10_000;

interface ProtectOptions extends DaemonOption {
  readonly qmp?: string;
  readonly libvirt?: string;
  readonly uri?: string;
  readonly pve?: string;
  readonly guest?: readonly GroupMember[];
  readonly device?: string;
  readonly log?: string;
  readonly rpo: number;
  readonly capture: CaptureChoice;
  readonly rate?: number;
  readonly target?: string;
  readonly seedHint?: true;
  readonly storageDaemonDisk?: readonly string[];
}

interface MarkOptions extends DaemonOption { readonly app?: true; readonly label?: string; readonly limit: number; readonly json?: true }

export function addGuestCommands(program: Command): void {
  withDaemon(program.command('protect').description('protect a running guest').argument('<guest>', 'a name for it, also at the target; or libvirt://DOMAIN, pve://VMID'))
    .option('--qmp <path>', 'its QMP socket (one that nobody else uses)', readPlaceOption)
    .option('--libvirt <domain>', 'in place of --qmp, its name in libvirt')
    .option('--uri <uri>', `with --libvirt, which libvirt (default: ${libvirtUriDefault})`)
    .option('--pve <vmid>', 'in place of --qmp, its number in Proxmox VE')
    .option('--guest <name=path...>', 'in place of --qmp, the guests of a group of several, with their QMP sockets (or libvirt://DOMAIN, pve://VMID): they share one line of points, and fail over together', readMember)
    .option('--device <path>', 'in place of a guest, a device of the kernel’s dm-log-writes target', (path) => resolve(path))
    .option('--log <path>', 'the device that it logs to', (path) => resolve(path))
    .option('--rpo <duration>', 'how much may be lost, 1s to 1h; from 100ms on with --capture writelog', readRpo, 5000)
    .addOption(new Option('--capture <kind>', 'how changes are followed: by dirty bitmaps and copies, or by a log of the guest’s writes').choices(captureChoices).default('cbt'))
    .option('--rate <size>', 'limit of the first sync and of resyncs, such as 100MiB a second', readRateOption)
    .option('--target <name>', 'when several targets are paired', readName)
    .option('--seed-hint', 'begin no first sync yet: say how to put images that the target has under it')
    .option('--storage-daemon-disk <node...>', 'node names of the disks, when the socket is a qemu-storage-daemon’s')
    .action(protect);

  withDaemon(program.command('unprotect').description('end protection and take everything of ours out of the guest').argument('<guest>', 'its name', readName))
    .option('--forget', 'the target removes its group as well, unless that has points: those it gives up at its own operator’s wish alone (`afterimage forget`)')
    .action(async (name: string, option: DaemonOption & { readonly forget?: true }) => {
      await (await client(option, 'unprotect')).unprotect(name, option.forget === true);
      print(`${name} is no longer protected${option.forget === true ? ', and the target has forgotten it' : '; the target keeps its replica and points'}\n`);
    });

  withDaemon(program.command('mark').description('take a point now, and wait until the target has it (at the source)').argument('<guest>', 'its name', readName))
    .option('--app', 'freeze the guest’s file systems for it, through QEMU’s guest agent')
    .option('--label <text>', 'what the point is called, such as "before upgrade"', readLabel)
    .option('--limit <duration>', 'how long to wait', readLimit, 60_000)
    .option('--json', 'the point as JSON')
    .action(mark);

  withDaemon(program.command('pause').description('hold a first sync or resync; protected guests go on').argument('<guest>', 'its name', readName))
    .action(async (name: string, option: DaemonOption) => {
      await (await client(option, 'pause')).pause(name);
      print(`${name} is paused: afterimage resume ${name}\n`);
    });

  withDaemon(program.command('resume').description('let a first sync or resync go on').argument('<guest>', 'its name', readName))
    .action(async (name: string, option: DaemonOption) => {
      await (await client(option, 'resume')).resume(name);
      print(`${name} goes on\n`);
    });

  withDaemon(program.command('resync').description('compare the whole guest with its replica by hash, and send what differs').argument('<guest>', 'its name', readName))
    .action(async (name: string, option: DaemonOption) => {
      await (await client(option, 'resync')).resync(name);
      print(`${name} is compared with its replica after the next point; status shows how far\n`);
    });

  withDaemon(program.command('capture').description('choose how a guest’s changes are followed; goes on from the same point').argument('<guest>', 'its name', readName))
    .addArgument(new Argument('<kind>', 'auto: by the pace').choices(captureChoices))
    .action(async (name: string, capture: CaptureChoice, option: DaemonOption) => {
      await (await client(option, 'capture')).setCapture(name, capture);
      print(`${name}: ${capture} from the next cut on; status says what is in use, and why\n`);
    });

  withDaemon(program.command('qmp').description('say where a guest’s QMP socket is now, when it was started in another way').argument('<guest>', 'its name', readName).argument('<path>', 'one that nobody else uses; or libvirt://DOMAIN, pve://VMID', readPlaceOption))
    .action(async (name: string, qmpPath: string, option: DaemonOption) => {
      await (await client(option, 'qmp')).setQmpPath(name, qmpPath);
      print(`${name} is followed at ${printable(qmpPath)} from now on\n`);
    });

  withDaemon(program.command('rate').description('limit the first sync and resyncs of a guest').argument('<guest>', 'its name', readName).argument('<size>', 'a second, such as 100MiB; 0 for no limit', readRateOption))
    .action(async (name: string, rateBytesPerSecond: number, option: DaemonOption) => {
      await (await client(option, 'rate')).setRate(name, rateBytesPerSecond);
      print(`${name}: ${rateBytesPerSecond === 0 ? 'no limit' : formatRate(rateBytesPerSecond)}\n`);
    });
}

async function protect(guest: string, option: ProtectOptions): Promise<void> {
  const { name, ...place } = inUsage(() => placeOf(guest, option));
  const source = await client(option, 'protect');
  const done = await source.protect({
    name, ...place, rpoMs: option.rpo, capture: option.capture, target: option.target, rateBytesPerSecond: option.rate,
    isPaused: option.seedHint, storageDaemonDisks: option.storageDaemonDisk,
  });
  if (option.seedHint !== true) {
    print(`${name} is being protected to ${done.target}. The first sync goes on by itself: afterimage status --watch ${name}\n`);
    return;
  }
  print([
    `${name} is known to ${done.target}; its first sync waits.`,
    `On ${done.target}, for each disk of which there is a raw image (however old), which is then compared instead of sent whole:`,
    ...(await disksOf(source, name)).map(({ disk, name: diskName, sizeBytes }) => `  afterimage seed-from ${name} ${disk} IMAGE    # ${printable(diskName)}, ${formatBytes(sizeBytes)}`),
    'Then here:',
    `  afterimage resume ${name}`,
  ].join('\n') + '\n');
}

/** What an argument's reader says, of one that can only be read with the options. */
function inUsage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof InvalidArgumentError ? new UsageError(error.message) : error;
  }
}

interface Found { readonly name: string; readonly qmpPath: string; readonly dmLogPath?: string; readonly members?: readonly GroupMember[] }

/** What is to be protected, under which name, and where it is found. */
function placeOf(guest: string, option: ProtectOptions): Found {
  const { qmp, libvirt, uri, pve, guest: members, device, log, storageDaemonDisk } = option;
  const ways = Object.entries({ '--qmp': qmp, '--libvirt': libvirt, '--pve': pve, '--guest': members, '--device': device ?? log }).filter(([, value]) => value !== undefined).map(([way]) => way);
  const isPlace = guest.includes('://');
  if (isPlace) ways.unshift(guest);
  if (ways.length === 0) throw new UsageError('required option \'--qmp <path>\' not specified (or \'--libvirt <domain>\', \'--pve <vmid>\', \'--guest <name=path...>\', or \'--device <path>\' and \'--log <path>\', both)');
  if (ways.length > 1) throw new UsageError(`${ways.join(' and ')} each say where a guest is found: one of them`);
  if (uri !== undefined && libvirt === undefined) throw new UsageError('--uri goes with --libvirt');
  if (storageDaemonDisk !== undefined && qmp === undefined) throw new UsageError('--storage-daemon-disk goes with --qmp');
  if (isPlace) return { name: readName(nameOf(guest)), qmpPath: readPlaceOption(guest) };
  const name = readName(guest);
  if (members !== undefined) {
    if (members.length < 2) throw new UsageError('a group of several guests has two --guest at least; one alone is named by --qmp');
    return { name, qmpPath: members[0]!.qmpPath, members };
  }
  if (libvirt !== undefined) return { name, qmpPath: readPlaceOption(formatPlace({ kind: 'libvirt', domain: libvirt, uri: uri ?? libvirtUriDefault })) };
  if (pve !== undefined) return { name, qmpPath: readPlaceOption(`pve://${pve}`) };
  if (qmp !== undefined) return { name, qmpPath: qmp };
  if (device === undefined || log === undefined) throw new UsageError('--device and --log go together');
  return { name, qmpPath: device, dmLogPath: log };
}

/** The name of a guest that was given by its place alone. */
function nameOf(text: string): string {
  const place = parsePlace(text);
  return place?.kind === 'libvirt' ? place.domain : place?.kind === 'pve' ? `vm-${place.vmid}` : text;
}

/** A path is relative to where the command was started; anything else is written in one way only. */
export function readPlaceOption(text: string): string {
  if (!text.includes('://')) return resolve(text);
  const place = parsePlace(text);
  if (place === undefined) throw new InvalidArgumentError('Expected the path of a QMP socket, libvirt://DOMAIN or pve://VMID.');
  return formatPlace(place);
}

async function mark(name: string, option: MarkOptions): Promise<void> {
  const marked = await (await client(option, 'mark')).mark({ name, isApp: option.app === true, label: option.label, limitMs: option.limit });
  if (option.json === true) printJson(marked);
  else print(`${name}: ${formatMarked(lookOf(process.stdout), marked)}\n`);
}

/** The source lists the disks when it has connected to the guest, which may be a moment later. */
async function disksOf(source: SourceClient, name: string): Promise<GuestReport['disks']> {
  for (const endMs = Date.now() + disksMsMax; ;) {
    const guest = (await source.report()).guests.find((candidate) => candidate.name === name);
    if (guest !== undefined && guest.disks.length > 0) return guest.disks;
    if (Date.now() >= endMs) return [];
    await delay(200);
  }
}

function client(option: DaemonOption, what: string): Promise<SourceClient> {
  return openSource(option, what);
}

export function readName(text: string): string {
  if (!safeName.safeParse(text).success) throw new InvalidArgumentError('Expected letters, digits, dots, dashes and underscores, at most 63.');
  return text;
}

function readMember(text: string, before: readonly GroupMember[] = []): readonly GroupMember[] {
  const [name, ...path] = text.split('=');
  if (path.length === 0 || path.join('') === '') throw new InvalidArgumentError('Expected a name and the path of its QMP socket: web=/run/web.sock.');
  return [...before, { name: readName(name!), qmpPath: readPlaceOption(path.join('=')) }];
}

function readRpo(text: string): number {
  const rpoMs = readDurationMs(text);
  if (rpoMs === undefined || rpoMs < rpoMsMin || rpoMs > rpoMsMax) throw new InvalidArgumentError('Expected a duration from 100ms to 1h.');
  return rpoMs;
}

function readLabel(text: string): string {
  if (!pointLabel.safeParse(text).success) throw new InvalidArgumentError('Expected one line of at most 200 characters.');
  return text;
}

function readLimit(text: string): number {
  const limitMs = readDurationMs(text);
  if (limitMs === undefined || limitMs < 1000 || limitMs > markMsMax) throw new InvalidArgumentError('Expected a duration from 1s to 1h.');
  return limitMs;
}

function readRateOption(text: string): number {
  const rate = readRate(text);
  if (rate === undefined) throw new InvalidArgumentError('Expected a size such as 100MiB, or 0 for no limit.');
  return rate;
}
