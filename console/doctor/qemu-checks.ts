/** Checks of the QEMU that is installed: there at all, new enough, built with what we need. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '../../journal/fault.ts';
import { probeFeatures, unsuited, versionMin, type QemuFeatures } from '../../qemu/features.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { findBinary, qemuName, qemuPackage, runBinary, type HostFacts } from './binaries.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';

/** From spawn until its QMP socket answers; a cold disk takes seconds, ms. */
const probeMsMax = 15_000;

function missing(name: string, packageName: string): Finding {
  return { ...fail(`${name} is not installed`, `apt install ${packageName}`), packages: [packageName] };
}

export function qemuCheck(host: HostFacts): Check {
  return {
    name: 'QEMU',
    run: async () => {
      const path = await findBinary(host, qemuName(host));
      if (path === null) return missing(qemuName(host), qemuPackage(host));
      const ran = await runBinary(path, ['--version']);
      if (!ran.isDone) return fail(`${path} does not run: ${ran.why}`, `apt install --reinstall ${qemuPackage(host)}`);
      const version = /version (\d+)\.(\d+)(?:\.(\d+))?/.exec(ran.output);
      if (version === null) return warn(`${path} does not say its version`, `QEMU ${versionMin.major}.${versionMin.minor} or later is needed.`);
      const [major, minor] = [Number(version[1]), Number(version[2])];
      const isOld = major < versionMin.major || (major === versionMin.major && minor < versionMin.minor);
      const found = `${path}, ${version[0]}`;
      return isOld ? fail(found, `QEMU ${versionMin.major}.${versionMin.minor} or later is needed: upgrade ${qemuPackage(host)} (guests keep the old one until they are restarted).`) : ok(found);
    },
  };
}

export function qemuFeaturesCheck(host: HostFacts): Check {
  return {
    name: 'QEMU features',
    run: async () => {
      const path = await findBinary(host, qemuName(host));
      if (path === null) return fail('there is no QEMU to ask', '');
      let features: QemuFeatures;
      try {
        features = await probeBinary(path);
      } catch (error) {
        if (!isFault(error)) throw error;
        return fail(`${path} could not be asked: ${error.message}`, `Try: ${path} -machine none -nographic -qmp stdio`);
      }
      const reasons = unsuited(features);
      if (reasons.length > 0) return fail(reasons.join('; '), 'Install a QEMU that has them; the packages of Debian, Ubuntu and Proxmox do.');
      return features.hasBlockGraph
        ? ok('quorum, null-co, qcow2, vpc, bitmaps, transactions, mirror, NBD')
        : warn('all drivers and commands, but no x-debug-query-block-graph', 'Guests whose disks have filters above them cannot be protected with this QEMU.');
    },
  };
}

/** Starts the binary with no machine at all, asks it, ends it. */
export async function probeBinary(path: string): Promise<QemuFeatures> {
  const folder = await mkdtemp(join(tmpdir(), 'afterimage-doctor-'));
  const socket = join(folder, 'qmp');
  const child = spawn(path, ['-machine', 'none', '-accel', 'tcg', '-nodefaults', '-nographic', '-S', '-qmp', `unix:${socket},server=on,wait=off`], { stdio: ['ignore', 'ignore', 'pipe'] });
  let words = '';
  child.stderr.on('data', (chunk: Buffer) => { words = (words + chunk.toString('utf8')).slice(-2000); });
  const ended = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(new Fault('QMP_UNREACHABLE', error.message)));
    child.once('exit', (code, signal) => reject(new Fault('QMP_UNREACHABLE', `it ended with ${signal ?? code}: ${words.trim().split('\n')[0] ?? ''}`)));
  });
  try {
    return await Promise.race([ended, ask(socket)]);
  } finally {
    child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }
}

async function ask(socket: string): Promise<QemuFeatures> {
  for (const endMs = performance.now() + probeMsMax; ;) {
    try {
      const qmp = await connectQmp(socket, { connectTimeoutMs: probeMsMax });
      try {
        return await probeFeatures(qmp);
      } finally {
        qmp.close();
      }
    } catch (error) {
      // It has not made its socket yet.
      if (!isFault(error, 'QMP_UNREACHABLE') || performance.now() > endMs) throw error;
      await delay(50);
    }
  }
}

export function qemuImgCheck(host: HostFacts): Check {
  return {
    name: 'qemu-img',
    run: async () => {
      const path = await findBinary(host, 'qemu-img');
      if (path === null) return missing('qemu-img', 'qemu-utils');
      const ran = await runBinary(path, ['--version']);
      return ran.isDone ? ok(`${path}, ${/version [\d.]+/.exec(ran.output)?.[0] ?? 'version unknown'}`) : fail(`${path} does not run: ${ran.why}`, 'apt install --reinstall qemu-utils');
    },
  };
}
