/** Checks of the QEMU that is installed: there at all, new enough, built with what we need. */
import { isFault } from '../../journal/fault.ts';
import { askEmptyQemu } from '../../qemu/empty-qemu.ts';
import { probeFeatures, unsuited, versionMin, type QemuFeatures } from '../../qemu/features.ts';
import { findBinary, qemuName, qemuPackage, runBinary, type HostFacts } from './binaries.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';

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
        features = await askEmptyQemu(path, 'tcg', probeFeatures);
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
