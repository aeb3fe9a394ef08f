"""The server's key and certificate, and the pin by which clients know it.

A pin is the SHA-256 of the public key (its SubjectPublicKeyInfo), so that a certificate may be
renewed. It is compared in the handshake's last step, before the session has a transport: nothing
but the handshake itself leaves for a server that has another key.
"""

from __future__ import annotations

import hmac
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from ..endpoint import alpn_of
from ..extras import needs

with needs("tunnel"):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

__all__ = ["HTTP", "WrongPin", "client_context", "make_certificate", "pin_of", "server_context"]

HTTP = "http/1.1"  # the ALPN protocol of WebSockets
LIFETIME = timedelta(days=20 * 365)  # what clients hold on to is the key


class WrongPin(ssl.SSLCertVerificationError):
    """The server has another key than the invitation said. It was told nothing."""

    reason: str = "WRONG_PIN"  # as OpenSSL's own errors have one
    library: str = "muxado"


def make_certificate() -> bytes:
    """Return a new key and a certificate of it that it has signed itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxado server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + certificate.public_bytes(Encoding.PEM)


def pin_of(certificate: bytes) -> str:
    """Return the pin of a certificate's key.

    Args:
        certificate: in DER, or in PEM.
    """
    load = x509.load_pem_x509_certificate
    parsed = (
        load(certificate)
        if b"-----BEGIN" in certificate
        else x509.load_der_x509_certificate(certificate)
    )
    key = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256-" + urlsafe_b64encode(sha256(key).digest()).rstrip(b"=").decode()


def server_context(path: str, protocol: str | None = None) -> ssl.SSLContext:
    """Return the context of a server whose key and certificate are in a file.

    Args:
        path: the file.
        protocol: the ALPN protocol, by default muxado's.

    Raises:
        OSError: the file can't be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(path)
    context.set_alpn_protocols([protocol or alpn_of(None)])
    return context


def client_context(pins: Sequence[str], protocol: str | None = None) -> ssl.SSLContext:
    """Return a context to dial with.

    Args:
        pins: what the server's key may be; () if its certificate must verify instead.
        protocol: the ALPN protocol, by default muxado's.
    """
    if not pins:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin stands in its place

        class PinnedObject(ssl.SSLObject):  # of event loops
            def do_handshake(self) -> None:
                super().do_handshake()
                _check(self.getpeercert(binary_form=True), pins)

        class PinnedSocket(ssl.SSLSocket):  # of threads
            def do_handshake(self, block: bool = False) -> None:
                super().do_handshake(block)
                _check(self.getpeercert(binary_form=True), pins)

        context.sslobject_class = PinnedObject
        context.sslsocket_class = PinnedSocket
    if protocol is None:  # what ends TLS before a web server may be older
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol or alpn_of(None)])
    return context


def _check(certificate: bytes | None, pins: Sequence[str]) -> None:
    """Check that a server's key is one of those that it may be.

    Raises:
        WrongPin: it is another one.
    """
    found = pin_of(certificate or b"")
    if not any(hmac.compare_digest(found, pin) for pin in pins):
        raise WrongPin(
            1,
            f"the server has the key {found}, not {' or '.join(pins)}: if it was given a new one,"
            " ask for a new invitation; otherwise somebody is in between",
        )
