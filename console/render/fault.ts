/** Failures as a person reads them: what happened, to which guest and disk, what the daemon does, what they can do. Pure. */
import { faultTable, type Fault, type FaultCode } from '../../journal/fault.ts';
import { tint, type Look } from './look.ts';
import { printable } from './units.ts';

export function formatFault(look: Look, fault: Fault): string {
  // One complaint per line, each at its place in the file: left as they are, so that editors can follow them.
  if (fault.code === 'CONFIG_INVALID') return `${fault.message.split('\n').map(printable).join('\n')}\n`;
  const row = faultTable[fault.code];
  return `${[
    `${tint(look, 'bad', fault.code)}: ${concerned(fault)}${printable(fault.message)}`,
    ...rowLines(row),
  ].join('\n')}\n`;
}

/** `guest web, disk 1: ` where the facts name them and the message does not. */
function concerned({ facts, message }: Fault): string {
  const guest = facts['guest'] ?? facts['group'];
  const disk = facts['diskName'] ?? facts['disk'];
  const parts = [
    ...(typeof guest === 'string' && !message.includes(guest) ? [`guest ${printable(guest)}`] : []),
    ...(typeof disk === 'number' || (typeof disk === 'string' && !message.includes(disk)) ? [`disk ${printable(String(disk))}`] : []),
  ];
  return parts.length === 0 ? '' : `${parts.join(', ')}: `;
}

function rowLines(row: (typeof faultTable)[FaultCode]): string[] {
  return [`  what it means    ${row.meaning}`, `  the daemon now   ${row.daemonDoes}`, `  you can          ${row.operatorCan}`];
}

/** `afterimage explain CODE`. */
export function formatExplanation(look: Look, code: FaultCode): string {
  return `${[tint(look, 'strong', code), ...rowLines(faultTable[code])].join('\n')}\n`;
}

/** `afterimage explain`. */
export function formatCodes(look: Look): string {
  const codes = Object.keys(faultTable) as FaultCode[];
  const width = Math.max(...codes.map((code) => code.length));
  return `${codes.map((code) => `${tint(look, 'strong', code.padEnd(width))}  ${faultTable[code].meaning}`).join('\n')}\n`;
}
