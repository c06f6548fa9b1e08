/**
 * Which config a command means: --config, else AFTERIMAGE_CONFIG, else the role's file in /etc/afterimage. A command that is
 * for one role refuses the config of the other with the way to go.
 */
import { access } from 'node:fs/promises';
import { defaultConfigPath, loadConfig, type Config, type SourceConfig, type TargetConfig } from './config/config.ts';
import { UsageError } from './exit-code.ts';

export interface ConfigOption { readonly config?: string | undefined }

export async function chooseSource(option: ConfigOption, what: string): Promise<SourceConfig> {
  const config = await loadConfig(named(option) ?? defaultConfigPath('source'));
  if (config.role !== 'source') throw new UsageError(`${what} is asked of a source, and ${config.path} configures a target: run it on the source’s host, or name the source’s config with --config`);
  return config;
}

export async function chooseTarget(option: ConfigOption, what: string): Promise<TargetConfig> {
  const config = await loadConfig(named(option) ?? defaultConfigPath('target'));
  if (config.role !== 'target') throw new UsageError(`${what} is asked of a target, and ${config.path} configures a source: run it on the target’s host, or name the target’s config with --config`);
  return config;
}

/** The config that is named; else those of /etc/afterimage that are there: one, or both on a host that plays both roles. */
export async function chooseAny(option: ConfigOption): Promise<readonly Config[]> {
  const path = named(option);
  if (path !== undefined) return [await loadConfig(path)];
  const found = await presentConfigs();
  // Says which file is missing.
  return found.length === 0 ? [await loadConfig(defaultConfigPath('source'))] : Promise.all(found.map(loadConfig));
}

/** As {@link chooseAny}, for what works without a config as well. */
export async function choosePresent(option: ConfigOption): Promise<readonly Config[]> {
  const path = named(option);
  return path !== undefined ? [await loadConfig(path)] : Promise.all((await presentConfigs()).map(loadConfig));
}

function named(option: ConfigOption): string | undefined {
  const fromEnvironment = process.env['AFTERIMAGE_CONFIG'];
  return option.config ?? (fromEnvironment === '' ? undefined : fromEnvironment);
}

async function presentConfigs(): Promise<string[]> {
  const paths = (['source', 'target'] as const).map(defaultConfigPath);
  const isThere = await Promise.all(paths.map((path) => access(path).then(() => true, (error: NodeJS.ErrnoException) => error.code !== 'ENOENT')));
  return paths.filter((_path, index) => isThere[index]);
}
