"""The authority of a fleet's servers, and the certificate that each process of it makes itself.

It is for peers alone: clients know servers by their pin, and servers know clients by their key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..extras import needs

with needs("tunnel"):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

__all__ = ["make_authority", "make_peer_certificate"]

LIFETIME = timedelta(days=20 * 365)
AUTHORITY = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxado peers")])
PEER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxado peer")])


def make_authority() -> bytes:
    """Return a new authority: its key and certificate, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _pem(key, _sign(key.public_key(), AUTHORITY, key, ca=True))


def make_peer_certificate(authority: bytes) -> bytes:
    """Return a new key and a certificate of it by an authority, as PEM.

    Args:
        authority: as `make_authority` has returned it.
    """
    secret = load_pem_private_key(authority, None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    return _pem(key, _sign(key.public_key(), PEER, secret, ca=False))


def _sign(
    key: ec.EllipticCurvePublicKey,
    name: x509.Name,
    secret: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(AUTHORITY)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .sign(secret, hashes.SHA256())
    )


def _pem(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + certificate.public_bytes(Encoding.PEM)
