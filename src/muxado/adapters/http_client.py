"""The standard library's `http.client` over a session's streams."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from typing import Any

from ..sync import Session
from ._idle import close_idle_when_draining

__all__ = ["HTTPConnection", "HTTPSConnection"]

# The standard library's mark for "what socket.setdefaulttimeout() says", which urllib.request
# passes on too.
DEFAULT_TIMEOUT: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]


class HTTPConnection(http.client.HTTPConnection):
    """An `http.client.HTTPConnection` over a stream, whatever its host is.

    Its stream ends when the session drains: at once if no request is running, else with the
    response.

    Args:
        session: the session.
        host: what the `Host` header says.
        timeout: seconds that each wait may take, None for ever; `socket.getdefaulttimeout()` by
            default.
        kwds: what else `http.client.HTTPConnection` takes.
    """

    def __init__(
        self,
        session: Session,
        host: str,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        **kwds: Any,
    ) -> None:
        super().__init__(host, timeout=timeout, **kwds)
        self.session: Session = session
        self._beginning = threading.RLock()  # held while a request begins
        close_idle_when_draining(session, self)

    def connect(self) -> None:
        """Open a stream."""
        stream: Any = self.session.open()
        self._set_timeout(stream)
        self.sock = stream

    def putrequest(self, *args: Any, **kwds: Any) -> None:
        """Begin a request, as `http.client.HTTPConnection` does."""
        with self._beginning:
            super().putrequest(*args, **kwds)

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the response, as `http.client.HTTPConnection` does."""
        response = super().getresponse()
        if self.session.draining:
            self._let_go()
        return response

    def close_idle(self) -> None:
        """Close the stream unless a request is running. It never waits."""
        if not self._beginning.acquire(blocking=False):
            return  # getresponse() does it
        try:
            state: str = self._HTTPConnection__state  # type: ignore[attr-defined]
            if state == http.client._CS_IDLE:  # type: ignore[attr-defined]
                self._let_go()
        finally:
            self._beginning.release()

    def _let_go(self) -> None:
        """Close the stream, unless a response is being read, which then does it at its end."""
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()

    def _set_timeout(self, sock: Any) -> None:
        if self.timeout is not DEFAULT_TIMEOUT:
            sock.settimeout(self.timeout)


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
            self._set_timeout(sock)
            self.sock: Any = self._context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
