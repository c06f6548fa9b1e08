/**
 * TLS for the NBD server: takes a connection that has agreed to NBD_OPT_STARTTLS and gives back the socket to go on with, once
 * the client has proved who it is, by a key that it shares with us (TLS-PSK) or by a certificate that is pinned here. It says
 * nothing of NBD. Invariant: what comes out belongs to a client that is known; whatever else happens, the connection is over.
 *
 * No authority vouches for anybody: a certificate is known by its fingerprint, and TLS proves that the client has its key.
 */
import type { Socket } from 'node:net';
import { constants, createHash } from 'node:crypto';
import { createServer, type TLSSocket } from 'node:tls';
import { Fault } from '../journal/fault.ts';
import type { NbdTls } from './nbd-handler.ts';

/**
 * In the order of our preference. With TLS 1.3 OpenSSL's keys go with suites of SHA-256 alone: were another one chosen, it would
 * pass over the key of a client that has nothing else. Those of 1.2 all have forward secrecy. GnuTLS, which QEMU and libnbd use, has them.
 */
const ciphers = [
  'TLS_AES_128_GCM_SHA256', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_256_GCM_SHA384',
  'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-PSK-CHACHA20-POLY1305', 'ECDHE-PSK-AES256-CBC-SHA384', 'ECDHE-PSK-AES128-CBC-SHA256',
].join(':');

/** Fault NBD_TLS; the connection has then been ended. */
export function secureNbd(accepted: Socket, tls: NbdTls, limitMs: number): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const users = new WeakMap<TLSSocket, string>();
    const server = createServer({
      ...tls.shown(), ciphers,
      // "NBD implementations supporting TLS MUST support TLS version 1.2, SHOULD support any later versions."
      minVersion: 'TLSv1.2',
      // A resumed session would have to be told whose it was; nobody connects often enough to miss it.
      secureOptions: constants.SSL_OP_NO_TICKET,
      requestCert: tls.clientFingerprints.size > 0,
      rejectUnauthorized: false,
      handshakeTimeout: limitMs,
      pskCallback: (socket, user) => {
        const key = tls.keyOf(user);
        if (key !== null) users.set(socket, user);
        return key;
      },
    });
    const refuse = (why: string, cause?: unknown): void => {
      accepted.destroy();
      reject(new Fault('NBD_TLS', `an NBD client at ${accepted.remoteAddress ?? 'an unknown address'} was turned away: ${why}`, { address: accepted.remoteAddress ?? null }, cause));
    };
    server.on('tlsClientError', (error) => refuse(`TLS failed: ${error.message}`, error));
    server.on('secureConnection', (socket) => {
      if (users.has(socket) && restsOnKey(socket)) return resolve(socket);
      const der = socket.getPeerX509Certificate()?.raw;
      const fingerprint = der === undefined ? null : createHash('sha256').update(der).digest('hex');
      if (fingerprint !== null && tls.clientFingerprints.has(fingerprint)) return resolve(socket);
      socket.destroy();
      refuse(fingerprint === null ? 'it showed neither a key nor a certificate that is known here' : `its certificate has the fingerprint ${fingerprint}, which is not known here`);
    });
    accepted.once('close', () => refuse('it went away during the TLS handshake'));
    server.emit('connection', accepted);
  });
}

/**
 * Being asked for a user's key is no proof yet: with TLS 1.3 a client may name a user and then, by what else it offers, have the
 * server go on with certificates. A session that rests on the key counts as resumed there (RFC 8446, 2.2), and nothing else can be
 * resumed, as each connection has a server of its own; with 1.2 the cipher says it.
 */
function restsOnKey(socket: TLSSocket): boolean {
  return socket.getProtocol() === 'TLSv1.3' ? socket.isSessionReused() : socket.getCipher().standardName.includes('_PSK_');
}
