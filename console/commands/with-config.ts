/** The options that nearly every command has. */
import type { Command } from 'commander';

export function withConfig(command: Command): Command {
  return command.option('-c, --config <file>', 'config of the daemon (or AFTERIMAGE_CONFIG; else /etc/afterimage/source.yaml or target.yaml)');
}

/** For commands that ask a daemon and need nothing else of its host. */
export function withDaemon(command: Command): Command {
  return withConfig(command)
    .option('--api <url>', 'a daemon elsewhere, https://HOST:PORT, in place of this host’s (or AFTERIMAGE_API)')
    .option('--token-file <file>', 'with --api: a token of `afterimage token create`, mode 0600 (or AFTERIMAGE_TOKEN_FILE)')
    .option('--fingerprint <sha256>', 'with --api: of the daemon’s certificate (or AFTERIMAGE_FINGERPRINT)')
    .option('--ca <file>', 'with --api: in place of --fingerprint, who vouches for the certificate (or AFTERIMAGE_CA)');
}
