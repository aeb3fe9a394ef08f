"""The certificates of servers, and how long a session's credential lasts."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any

from ..asyncio import Session

__all__ = ["PeerTLS", "end_with_certificate", "expiry_of"]

logger: logging.Logger = logging.getLogger("muxado.cluster")

MOST_WAIT = 86_400.0  # seconds: loops count no longer times well


class PeerTLS:
    """The certificate of a server, and the authority of its peers'.

    Any certificate of that authority makes a peer, whatever its name; so the authority is for peers
    alone, and not the one of clients.

    Attributes:
        server: the context for peers that dial.
        client: the context to dial peers with.
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str],
        authority: str | os.PathLike[str],
    ) -> None:
        """Read the files, in PEM.

        Args:
            certificate: this server's own, with the chain; for use by servers and by clients.
            key: its key.
            authority: the certificates that those of peers must be issued by.

        Raises:
            OSError: a file can't be read (`ssl.SSLError` if it has not what it should).
        """
        self.server: ssl.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.client: ssl.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.check_hostname = False  # who is reached is a peer, which one its hello says
        for context in (self.server, self.client):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)
            context.set_alpn_protocols(["muxado/2"])


def expiry_of(session: Session) -> float | None:
    """Return when the certificate of a session's peer expires, as `time.time` counts; or None."""
    certificate: dict[str, Any] | None = session.get_extra_info("peercert")
    text = (certificate or {}).get("notAfter")
    return ssl.cert_time_to_seconds(text) if isinstance(text, str) else None


@contextmanager
def end_with_certificate(session: Session, expires: float | None = None) -> Iterator[None]:
    """End a session when its peer's certificate expires, while the block runs.

    Args:
        session: the session.
        expires: when, as `time.time` counts; by default when the certificate does.
    """
    when = expiry_of(session) if expires is None else expires
    handle: asyncio.TimerHandle | None = None
    loop = asyncio.get_running_loop()

    def look() -> None:
        nonlocal handle
        assert when is not None
        rest = when - time()
        if rest > 0:
            handle = loop.call_later(min(rest, MOST_WAIT), look)
        else:
            logger.warning("%r ends: its credential has expired", session)
            session.abort(403)

    if when is not None:
        look()
    try:
        yield
    finally:
        if handle is not None:
            handle.cancel()
