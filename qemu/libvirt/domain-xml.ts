/** Reads and writes libvirt's domain XML as a tree, so that what is not ours to change stays as it is. Pure. */
import { DOMParser, XMLSerializer, type Document, type Element } from '@xmldom/xmldom';
import { Fault } from '../../journal/fault.ts';

/** Of the elements for which libvirt has no own words (libvirt's drvqemu documentation, "Pass-through of arbitrary QEMU commands"). */
export const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0';

export interface DomainXml { readonly document: Document; readonly domain: Element }

/** Fault LIBVIRT_REFUSED: what is no domain's XML. */
export function parseDomain(xml: string): DomainXml {
  const flaw = (why: string): Fault => new Fault('LIBVIRT_REFUSED', `what libvirt gave is no domain XML: ${why}`);
  let document: Document;
  try {
    document = new DOMParser({ onError: (level, message) => { if (level !== 'warning') throw flaw(message); } }).parseFromString(xml, 'text/xml');
  } catch (error) {
    throw error instanceof Fault ? error : flaw(String(error));
  }
  const domain = document.documentElement;
  if (domain === null || domain.tagName !== 'domain') throw flaw('its first element is not <domain>');
  return { document, domain };
}

export function serialize({ document }: DomainXml): string {
  return new XMLSerializer().serializeToString(document);
}

/** The elements of this name right beneath `parent`. */
export function children(parent: Element, name: string): Element[] {
  return Array.from(parent.childNodes).filter((node): node is Element => node.nodeType === node.ELEMENT_NODE && (node as Element).tagName === name);
}

export function child(parent: Element | undefined, name: string): Element | undefined {
  return parent === undefined ? undefined : children(parent, name)[0];
}

/** An attribute's value, undefined where it is absent. */
export function attribute(element: Element | undefined, name: string): string | undefined {
  return element?.getAttribute(name) ?? undefined;
}

export function textOf(element: Element | undefined): string | undefined {
  return element?.textContent?.trim();
}

/** The child of this name, made where it is absent. */
export function ensureChild({ document }: DomainXml, parent: Element, name: string): Element {
  const there = child(parent, name);
  if (there !== undefined) return there;
  const made = document.createElement(name);
  parent.appendChild(made);
  return made;
}

/** The QEMU arguments that the domain has beyond libvirt's own. */
export function qemuArguments({ domain }: DomainXml): string[] {
  return Array.from(domain.getElementsByTagNameNS(qemuNamespace, 'arg')).flatMap((element) => attribute(element, 'value') ?? []);
}

export function addQemuArguments({ document, domain }: DomainXml, args: readonly string[]): void {
  const line = commandLine(document, domain);
  for (const value of args) {
    const arg = document.createElementNS(qemuNamespace, `${line.prefix ?? 'qemu'}:arg`);
    arg.setAttribute('value', value);
    line.appendChild(arg);
  }
}

function commandLine(document: Document, domain: Element): Element {
  const there = Array.from(domain.getElementsByTagNameNS(qemuNamespace, 'commandline')).find(({ parentNode }) => parentNode === domain);
  if (there !== undefined) return there;
  domain.setAttributeNS('http://www.w3.org/2000/xmlns/', 'xmlns:qemu', qemuNamespace);
  const made = document.createElementNS(qemuNamespace, 'qemu:commandline');
  domain.appendChild(made);
  return made;
}
