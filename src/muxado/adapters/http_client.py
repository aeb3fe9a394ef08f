"""The standard library's `http.client` over a session's streams."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

from ..sync import Session

__all__ = ["HTTPConnection", "HTTPSConnection"]


class HTTPConnection(http.client.HTTPConnection):
    """An `http.client.HTTPConnection` over a stream, whatever its host is.

    Args:
        session: the session.
        host: what the `Host` header says.
        timeout: seconds that each wait may take, None for ever.
        kwds: what else `http.client.HTTPConnection` takes.
    """

    def __init__(
        self, session: Session, host: str, *, timeout: float | None = None, **kwds: Any
    ) -> None:
        super().__init__(host, timeout=timeout, **kwds)
        self.session: Session = session

    def connect(self) -> None:
        """Open a stream."""
        stream: Any = self.session.open()
        stream.settimeout(self.timeout)
        self.sock = stream


class HTTPSConnection(HTTPConnection):
    """The same with TLS inside the stream, through `Stream.to_socket()`: two threads each.

    Args:
        session: the session.
        host: what the `Host` header says, and the certificate must be for.
        context: the client's context; the system's authorities are trusted by default.
        kwds: as for `HTTPConnection`.
    """

    default_port = http.client.HTTPS_PORT

    def __init__(
        self,
        session: Session,
        host: str,
        *,
        context: ssl.SSLContext | None = None,
        **kwds: Any,
    ) -> None:
        super().__init__(session, host, **kwds)
        self._context = context or ssl.create_default_context()

    def connect(self) -> None:
        """Open a stream, and do the handshake in it."""
        sock = self.session.open().to_socket()
        try:
            sock.settimeout(self.timeout)
            self.sock: Any = self._context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
