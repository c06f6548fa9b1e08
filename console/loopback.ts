/** Whether only processes of this host reach an address: `host` as it stands in a config, or as a socket tells it. */
export function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || /^127\.\d+\.\d+\.\d+$/.test(host) || /^::ffff:127\./.test(host);
}
