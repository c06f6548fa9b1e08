/** Whether a guest's agent answers and can freeze: what application-consistent points need. Freezes nothing. */
import { isFault } from '../../journal/fault.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import { printable } from '../render/units.ts';
import { ok, warn, type Check, type Finding } from './check.ts';

/** For an agent that the config names. */
export function agentCheck(guest: string, path: string): Check {
  return { name: `agent of ${guest}`, run: () => askAgent(path) };
}

/** For the agent that a guest's QEMU knows of; null when it knows of none, which is nobody's fault. */
export async function judgeChannel(channel: AgentChannel): Promise<Finding> {
  switch (channel.kind) {
    case 'none': return ok(`no guest agent (${printable(channel.why)}), so no application-consistent points`);
    case 'taken': return warn(`another program is connected to its guest agent at ${printable(channel.path)}`, 'Application-consistent points need the agent’s socket for themselves while they are taken (libvirt keeps it).');
    case 'free': return askAgent(channel.path);
    default: return channel satisfies never;
  }
}

async function askAgent(path: string): Promise<Finding> {
  try {
    const agent = await connectGuestAgent(path);
    try {
      await agent.ping();
      const { version, commands } = await agent.info();
      const found = `guest agent ${printable(version)}`;
      if (await agent.freezeStatus() === 'frozen') return warn(`${found}: the guest’s file systems are frozen`, 'If no program is at work on them: `afterimage explain FREEZE_PENDING`.');
      return commands.has('guest-fsfreeze-freeze') ? ok(`${found}, can freeze`) : warn(`${found} may not freeze`, 'Allow guest-fsfreeze-* in the agent’s configuration in the guest.');
    } finally {
      agent.close();
    }
  } catch (error) {
    if (!isFault(error)) throw error;
    return warn(error.message, 'Points of kind `app` will be `crash` and say so. Check that qemu-guest-agent runs in the guest.');
  }
}
