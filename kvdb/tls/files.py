"""
Certificates, keys and CAs: which files, and what OpenSSL makes of them.

Rules: TLS 1.2 or later, ciphers with forward secrecy and authentication only;
what can be wrong in a file is found when it is read, and said in one line that
names the option.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from kvdb.reloading import Files, Unusable, read_file
from kvdb.tls.settings import TLSFiles

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2; those of 1.3 are all good."""

_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_TICKET
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
)


@frozen(slots=True, eq=False)
class Material:
    """
    What was read.

    @ivar server: for connections that come in.
    @ivar client: for those that are made.
    @ivar expires: when the first of the certificates does, in seconds since
        1970.
    @ivar certificate: what others are shown.
    """

    server: SSL.Context
    client: SSL.Context
    expires: float
    certificate: crypto.X509


def load(files: Files, named: TLSFiles) -> Material:
    """
    Read them.

    @raise Unusable: with the reason.
    """
    option = f"--{named.prefix}cert-file"
    chain = _certificates(files, named.cert, option)
    key_option = f"--{named.prefix}key-file"
    key = _key(files, named.key, key_option)
    trusted = []
    if named.ca is not None:
        trusted = _certificates(files, named.ca, f"--{named.prefix}trusted-ca-file")
    contexts = [SSL.Context(SSL.TLS_METHOD) for _ in range(2)]
    for context in contexts:
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(CIPHERS)
        context.set_options(_OPTIONS)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        try:
            context.use_certificate(chain[0])
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, ValueError, TypeError):
            raise Unusable(
                f"{key_option}: {named.key} is not the key of the certificate in"
                f" {named.cert}"
            ) from None
        for extra in chain[1:]:
            context.add_extra_chain_cert(extra)
        store = context.get_cert_store()
        assert store is not None, "a context without a store"
        # Whatever stands in the file is trusted, also where it is no root.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for one in trusted:
            store.add_cert(crypto.X509.from_cryptography(one))
    server, client = contexts
    expires = min(one.not_valid_after_utc.timestamp() for one in (chain[0], *trusted))
    return Material(server, client, expires, crypto.X509.from_cryptography(chain[0]))


def _certificates(files: Files, path: str, option: str) -> list[x509.Certificate]:
    data = read_file(files, path, option)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise Unusable(
            f"{option}: {path} holds no certificate in PEM form (-----BEGIN"
            " CERTIFICATE-----)"
        ) from None


def _key(files: Files, path: str, option: str) -> Any:
    data = read_file(files, path, option)
    try:
        return load_pem_private_key(data, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Unusable(
            f"{option}: {path} holds no private key in PEM form without a passphrase"
        ) from None


def day(seconds: float) -> str:
    """A time for people, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")
