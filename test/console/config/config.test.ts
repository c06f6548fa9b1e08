import { readFile, mkdtemp, writeFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { defaultPort, loadConfig, parseConfig } from '../../../console/config/config.ts';
import { isFault } from '../../../journal/fault.ts';

const samples = new URL('../../../console/config/samples/', import.meta.url);
const GiB = 1024 ** 3;

function problems(text: string, hostName = 'alpha'): string[] {
  try {
    parseConfig('F', text, hostName);
  } catch (error) {
    if (isFault(error, 'CONFIG_INVALID')) return error.message.split('\n');
    throw error;
  }
  return [];
}

const normal = { sensitivity: 'normal' as const, holdMs: 7 * 86_400_000 };

t.test('samples load', async (t) => {
  const at = (name: string): string => new URL(name, samples).pathname;
  t.strictSame(await loadConfig(at('source.yaml')), {
    role: 'source', path: at('source.yaml'), controlPath: '/run/afterimage/source/control.sock', localTarget: { user: 'afterimage', name: 'alpha' }, api: { host: '0.0.0.0', port: 7230, tls: null }, logLevel: 'info', metrics: { host: '127.0.0.1', port: 9728 },
    alerts: {
      webhooks: [], email: null, command: ['/usr/local/bin/page-me'], quietHours: null, repeatEveryMs: null, settleMs: 60_000, heartbeat: null,
      thresholds: { rpoWarn: 3, rpoError: 10, absentMs: 300_000, provenMs: null, certificateMs: 30 * 86_400_000, volumeFullMs: 86_400_000 },
    },
    options: {
      name: 'alpha', dataFolder: '/var/lib/afterimage/source',
      spool: { folder: '/var/lib/afterimage/source/spool', budgetBytes: 4 * GiB, keepFreeBytes: GiB },
      limits: [],
      guests: { web: { agentPath: '/run/afterimage/web.agent', freezeLimitMs: 5000, appEveryMs: 3_600_000 }, shop: { consistency: 'strict', pauseMsMax: 1000 } },
      witness: {
        etcd: { endpoints: ['https://etcd1.example.org:2379', 'https://etcd2.example.org:2379'], prefix: '/afterimage/', caPath: '/etc/afterimage/etcd-ca.pem', user: 'afterimage', passwordPath: '/etc/afterimage/etcd-password' },
        ttlMs: 30_000, onLeaseLost: 'pause',
      },
    },
  });
  t.strictSame(await loadConfig(at('target.yaml')), {
    role: 'target', path: at('target.yaml'), controlPath: '/run/afterimage/target/control.sock', api: { host: '0.0.0.0', port: 7229, tls: null }, logLevel: 'info', localSourcePath: '/run/afterimage/source/control.sock',
    metrics: { host: '127.0.0.1', port: 9729 },
    alerts: {
      webhooks: [
        { url: 'https://hooks.example.org/afterimage', secretPath: '/etc/afterimage/webhook-secret', codes: null },
        { url: 'https://pager.example.org/dr', secretPath: null, codes: ['SOURCE_ABSENT', 'FAILED_OVER'] },
      ],
      email: { host: 'mail.example.org', port: 587, tls: 'starttls', from: 'afterimage@bravo.example.org', to: ['operators@example.org'], userPath: '/etc/afterimage/smtp-user', passwordPath: '/etc/afterimage/smtp-password', caPath: null },
      command: ['/usr/local/bin/page-me', '--json'],
      quietHours: { fromMinute: 22 * 60, toMinute: 7 * 60, days: [0, 1, 2, 3, 4], errors: 'pass' },
      repeatEveryMs: 86_400_000, settleMs: 60_000, heartbeat: { url: 'https://watch.example.org/ping/afterimage', everyMs: 60_000 },
      thresholds: { rpoWarn: 3, rpoError: 10, absentMs: 300_000, provenMs: 35 * 86_400_000, certificateMs: 30 * 86_400_000, volumeFullMs: 86_400_000 },
    },
    options: {
      suspicion: { all: normal, groups: { web: normal, shop: normal } },
      name: 'bravo', dataFolder: '/srv/afterimage', listen: { host: '0.0.0.0', port: 7228 }, advertise: { host: 'bravo.example.org', port: 7228 },
      failover: { accel: 'auto', network: 'none', overlayFolder: '/srv/afterimage/overlays', manager: { by: 'libvirt', uri: 'qemu:///system' }, checkEveryMs: 6 * 3_600_000, starts: { shop: {
        db: { order: 1, delayMs: 0, ready: { agent: true, withinMs: 300_000 } },
        web: { order: 2, delayMs: 5000, ready: { serial: 'login:', command: ['/usr/local/bin/check-shop', '--quiet'], withinMs: 120_000 } },
      } }, networks: { shop: { failover: { default: 'bridge:br0', '52:54:00:12:34:56': 'bridge:br-dmz' }, test: { default: 'isolated' } } }, automatic: { shop: { afterMs: 30_000 } }, hooks: { shop: {
        fence: { command: ['/usr/local/bin/fence', 'alpha'], withinMs: 60_000 }, beforeStart: { command: ['/usr/local/bin/announce'], withinMs: 30_000 }, afterStart: { command: ['/usr/local/bin/update-dns'], withinMs: 30_000 },
        afterCommit: { command: ['/usr/local/bin/announce'], withinMs: 30_000 }, afterRollBack: { command: ['/usr/local/bin/update-dns'], withinMs: 30_000 },
      } } },
      witness: {
        etcd: { endpoints: ['https://etcd1.example.org:2379', 'https://etcd2.example.org:2379'], prefix: '/afterimage/', caPath: '/etc/afterimage/etcd-ca.pem', certPath: '/etc/afterimage/etcd-client.pem', keyPath: '/etc/afterimage/etcd-client.key' },
        ttlMs: 30_000,
      },
      rehearseEveryMs: { shop: 7 * 86_400_000 }, keepFreeBytes: 8 * GiB,
      scrub: { rateBytesPerSecond: 20 * 1024 ** 2, everyMs: 7 * 86_400_000 },
      nbd: { socketPath: '/srv/afterimage/points.sock', listen: { host: '0.0.0.0', port: 10_809, keysPath: '/etc/afterimage/nbd.psk', clientFingerprints: [] } },
      retention: {
        all: { windowMs: 4 * 3_600_000, hourly: 24, daily: 7, weekly: 4, monthly: 12, budgetBytes: 500 * GiB },
        groups: {
          web: { windowMs: 12 * 3_600_000, hourly: 24, daily: 7, weekly: 4, monthly: 12, budgetBytes: 500 * GiB },
          shop: { windowMs: 4 * 3_600_000, hourly: 24, daily: 7, weekly: 4, monthly: 12, budgetBytes: 500 * GiB },
        },
      },
    },
  });
});

t.test('what is left out is filled in', async (t) => {
  t.strictSame(parseConfig('F', await readFile(new URL('source-minimal.yaml', samples), 'utf8'), 'host-1.example.org'), {
    role: 'source', path: 'F', controlPath: '/var/lib/afterimage/source/control.sock', localTarget: null, api: null, logLevel: 'info', metrics: null, alerts: null,
    options: {
      name: 'host-1', dataFolder: '/var/lib/afterimage/source',
      spool: { folder: '/var/lib/afterimage/source/spool', budgetBytes: 4 * GiB, keepFreeBytes: GiB },
      guests: {}, limits: [],
    },
  });
  t.match(parseConfig('F', 'role: source\nname: a\ndata: /d\nlocalTarget: { user: 61234 }'), { localTarget: { user: '61234', name: 'a' } });
  const target = parseConfig('F', await readFile(new URL('target-minimal.yaml', samples), 'utf8'), 'host-2.example.org');
  t.match(target, { role: 'target', options: { listen: { port: defaultPort }, advertise: { host: 'host-2.example.org', port: defaultPort } } });
});

t.test('metrics and alerts: what is wrong with them', (t) => {
  t.strictSame(problems([
    'role: target',
    'data: /srv/afterimage',
    'metrics: { listen: { host: 127.0.0.1 } }',
    'alerts:',
    '  webhook:',
    '    - { url: ftp://example.org, token: x }',
    '    - { url: "https://me:secret@example.org/" }',
    '  email: { smtp: mail.example.org, tls: none, from: nobody, to: [a@example.org], passwordFile: /etc/secret }',
    '  quietHours: { from: "24:00", to: "07:00", days: [someday] }',
    '  rules: { rpo: { warn: 0 } }',
  ].join('\n')), [
    'F:3:12: metrics.listen.port: is missing: expected a port from 0 (any free one) to 65535',
    'F:6:14: alerts.webhook.0.url: expected an http or https address without a password in it',
    'F:6:33: alerts.webhook.0.token: unknown key; expected one of url, secretFile, events',
    'F:7:14: alerts.webhook.1.url: expected an http or https address without a password in it',
    'F:8:53: alerts.email.from: expected an e-mail address such as afterimage@example.org, found "nobody"',
    'F:9:23: alerts.quietHours.from: expected a time of day in quotes, such as "22:00", found "24:00"',
    'F:9:51: alerts.quietHours.days: expected a list of days such as [sat, sun], found ["someday"]',
    'F:10:25: alerts.rules.rpo.warn: expected a number from 1 to 1000, found 0',
  ]);
  t.strictSame(problems([
    'role: source', 'data: /srv/afterimage', 'alerts:',
    '  email: { smtp: mail.example.org, tls: none, from: a@example.org, to: [a@example.org], userFile: /etc/user, passwordFile: /etc/secret }',
    '  rules: { rpo: { warn: 5, error: 2 } }',
  ].join('\n')), [
    'F:4:41: alerts.email.tls: expected `starttls` or `tls`: a password would travel in the clear',
    'F:5:35: alerts.rules.rpo.error: expected at least `warn` (5)',
  ]);
  t.end();
});

t.test('golden errors: all problems of a file at once, each with its place', async (t) => {
  t.strictSame(problems([
    'role: source',
    'name: "two words"',
    'data: relative/path',
    'spool:',
    '  folder: /spool',
    '  budget: 4096',
    '  keepfree: 1GiB',
    'colour: blue',
    'log:',
    '  level: loud',
    'control: []',
  ].join('\n')), [
    'F:2:7: name: expected a name of at most 63 letters, digits, dots, dashes and underscores, found "two words"',
    'F:3:7: data: expected an absolute path, found "relative/path"',
    'F:6:11: spool.budget: expected a size of at least 16MiB with its unit, such as 4GiB, found 4096',
    'F:7:3: spool.keepfree: unknown key; expected one of folder, budget, keepFree',
    'F:8:1: colour: unknown key; expected one of role, name, data, tls, spool, guests, limits, witness, control, localTarget, api, log, metrics, alerts',
    'F:10:10: log.level: expected one of trace, debug, info, warn, error, found "loud"',
    'F:11:10: control: expected an absolute path of at most 107 bytes, found []',
  ]);
  t.strictSame(problems([
    'role: target',
    'listen: 7228',
    'advertise: bravo:99999',
    'failover: { accel: xen, network: bridge, overlayFolder: /, check: { every: 5s } }',
    'keepFree: -1GiB',
  ].join('\n')), [
    'F:1:1: data: is missing: expected an absolute path',
    'F:2:9: listen: expected the keys host, port, found 7228',
    'F:3:12: advertise: expected host or host:port as sources reach this target, found "bravo:99999"',
    'F:4:20: failover.accel: expected one of kvm, tcg, auto, found "xen"',
    'F:4:34: failover.network: expected none, user or bridge:NAME, found "bridge"',
    'F:4:76: failover.check.every: expected a duration from 1m to 31d, such as 6h, found "5s"',
    'F:5:11: keepFree: expected a size with its unit, such as 1GiB, found "-1GiB"',
  ]);
});

t.test('golden errors: single guests', async (t) => {
  t.strictSame(problems([
    'role: source',
    'data: /x',
    'guests:',
    '  web:',
    '    app: { every: 5s }',
    '    freezeLimit: 5',
    '    agents: /y',
    '  db: { app: {} }',
    '  "a b": {}',
    '  mail: 7',
  ].join('\n')), [
    'F:5:19: guests.web.app.every: expected a duration from 1m to 31d, such as 1h, found "5s"',
    'F:6:18: guests.web.freezeLimit: expected a duration from 500ms to 30s, such as 5s, found 5',
    'F:7:5: guests.web.agents: unknown key; expected one of agent, freezeLimit, app, consistency, pauseLimit, onLeaseLost',
    'F:8:9: guests.db.app.every: is missing: expected a duration from 1m to 31d, such as 1h',
    'F:9:10: guests.a b: expected a name of at most 63 letters, digits, dots, dashes and underscores for a guest',
    'F:10:9: guests.mail: expected the keys agent, freezeLimit, app, consistency, pauseLimit, onLeaseLost, found 7',
  ]);
  t.strictSame(problems('role: source\ndata: /x\nguests: [web]'), ['F:3:9: guests: expected names of guests with their settings, found ["web"]']);
});

t.test('golden errors: witness, networks, hooks', async (t) => {
  t.strictSame(problems([
    'role: target',
    'data: /x',
    'groups:',
    '  shop:',
    '    automatic: { after: 2d }',
    '    networks: { failover: { default: br0, "52:54": none } }',
    '    hooks: { fence: { command: reboot }, before: {} }',
    'witness: { etcd: { endpoints: ["ftp://x", 7], prefix: x }, ttl: 1s }',
  ].join('\n')), [
    'F:5:25: groups.shop.automatic.after: expected a duration of at most 1d, such as 30s, found "2d"',
    'F:6:38: groups.shop.networks.failover.default: expected none, user, isolated or bridge:NAME, found "br0"',
    'F:7:32: groups.shop.hooks.fence.command: expected a program and its arguments, as a list of texts, found "reboot"',
    'F:7:42: groups.shop.hooks.before: unknown key; expected one of fence, beforeStart, afterStart, afterCommit, afterRollBack',
    'F:8:31: witness.etcd.endpoints: expected a list of addresses such as https://etcd1.example.org:2379, found ["ftp://x",7]',
    'F:8:55: witness.etcd.prefix: expected a path of keys such as /afterimage/, found "x"',
    'F:8:65: witness.ttl: expected a duration from 3s to 1h, such as 30s, found "1s"',
  ]);
  t.strictSame(problems('role: target\ndata: /x\ngroups:\n  shop:\n    networks: { test: { "52:54": none } }'), ['F:5:34: groups.shop.networks.test.52:54: expected `default` or a MAC address such as 52:54:00:12:34:56']);
  t.strictSame(problems('role: target\ndata: /x\ngroups:\n  shop:\n    automatic: { after: 30s }'), ['F:5:16: groups.shop.automatic: expected a `witness` beside it: without one nobody can tell a host that is lost from one that cannot be reached']);
});

t.test('golden errors: how a group starts', async (t) => {
  t.strictSame(problems([
    'role: target',
    'data: /x',
    'groups:',
    '  shop:',
    '    rehearse: { every: 1s }',
    '    guests:',
    '      db: { order: -1, delay: 2h }',
    '      web: { ready: { serial: "(", agent: no, command: [], within: 0s } }',
  ].join('\n')), [
    'F:5:24: groups.shop.rehearse.every: expected a duration from 1m to 366d, such as 7d, found "1s"',
    'F:7:20: groups.shop.guests.db.order: expected a whole number from 0 to 1000, found -1',
    'F:7:31: groups.shop.guests.db.delay: expected a duration of at most 1h, such as 10s, found "2h"',
    'F:8:31: groups.shop.guests.web.ready.serial: expected a regular expression, found "("',
    'F:8:43: groups.shop.guests.web.ready.agent: expected true, found "no"',
    'F:8:56: groups.shop.guests.web.ready.command: expected a program and its arguments, as a list of texts, found []',
    'F:8:68: groups.shop.guests.web.ready.within: expected a duration from 1s to 1h, such as 2m, found "0s"',
  ]);
});

t.test('golden errors: role, impossible combinations', async (t) => {
  t.strictSame(problems('data: /x'), ['F:1:1: role: is missing: expected `role: source` or `role: target`']);
  t.strictSame(problems('\nrole: both'), ['F:2:7: role: expected source or target, found "both"']);
  t.strictSame(problems('role: source\ndata: /srv/x\nspool: {folder: /srv}'), ['F:3:17: spool.folder: expected a folder of its own, found one that holds the data folder']);
  t.strictSame(problems('role: target\ndata: /srv/x\nfailover:\n  overlayFolder: /srv/x/'), ['F:4:18: failover.overlayFolder: expected a folder of its own, found one that holds the data folder']);
  t.match(problems(`role: source\ndata: /${'d'.repeat(100)}`)[0], /^F:2:7: data: a control socket in this folder would have a path longer than 107 bytes/);
  t.match(problems('role: source\ndata: /x', 'bad host')[0], /^F:1:1: name: is missing, and this host’s name \("bad host"\) cannot stand in/);
  t.strictSame(problems('role: source\ndata: /srv/x\nspool: {folder: /srv/xy}'), [], 'a sibling with the same beginning is no parent');
});

t.test('golden errors: what is not plain YAML', async (t) => {
  const first = (text: string): string => problems(text)[0]!;
  t.match(first('role: source\nrole: target'), /^F:2:1: Map keys must be unique/);
  t.match(first('role: [source'), /^F:1:14: /);
  t.match(first('role: source\n\tdata: /x'), /^F:2:1: /);
  t.match(first('a: &a /x\ndata: *a'), /^F:2:7: expected the value itself, found an alias/);
  t.match(first('data: !!js/function x'), /^F:1:7: Unresolved tag/);
  t.match(first('data: !own x'), /^F:1:7: Unresolved tag/);
  t.match(first('- role'), /^F:1:1: expected keys and values/);
  t.match(first(''), /^F:1:1: expected keys and values/);
  t.match(first('a: 1\n---\nb: 2'), /^F:\d+:\d+: /);
  const laughs = ['a: &a [x,x,x,x,x,x,x,x,x]', ...'bcdefgh'.split('').map((key, index) => `${key}: &${key} [${`*${'abcdefg'[index]},`.repeat(9)}]`)].join('\n');
  t.match(first(laughs), /found an alias/, 'and nothing was expanded');
});

t.test('files that cannot be read are named', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'afterimage-config-'));
  t.teardown(() => rm(folder, { recursive: true }));
  await t.rejects(loadConfig(join(folder, 'none.yaml')), { code: 'CONFIG_INVALID', message: `${join(folder, 'none.yaml')}: cannot read the configuration: there is no such file` });
  await t.rejects(loadConfig(folder), { code: 'CONFIG_INVALID', message: /it is a folder/ });
  await writeFile(join(folder, 'latin1.yaml'), Buffer.from([0x72, 0xff, 0xfe]));
  await t.rejects(loadConfig(join(folder, 'latin1.yaml')), { code: 'CONFIG_INVALID', message: /not UTF-8/ });
  await writeFile(join(folder, 'large.yaml'), Buffer.alloc(300 * 1024, 0x20));
  await t.rejects(loadConfig(join(folder, 'large.yaml')), { code: 'CONFIG_INVALID', message: /expected a config file, found 307200 bytes/ });
});
