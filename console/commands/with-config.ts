/** The option that nearly every command has. */
import type { Command } from 'commander';

export function withConfig(command: Command): Command {
  return command.option('-c, --config <file>', 'config of the daemon (or AFTERIMAGE_CONFIG; else /etc/afterimage/source.yaml or target.yaml)');
}
