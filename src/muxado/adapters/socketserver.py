"""The standard library's servers over a session: `socketserver` and `http.server`."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import selectors
import socket
import socketserver
import ssl
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..errors import SessionClosed, SessionError
from ..sync import Session, Stream
from ._idle import close_idle_when_draining

if TYPE_CHECKING:
    Base = socketserver.TCPServer
    BaseHandler = http.server.BaseHTTPRequestHandler
else:
    Base = BaseHandler = object

__all__ = ["HTTPServer", "SessionMixIn"]

logger: logging.Logger = logging.getLogger("muxado")


class SessionMixIn(Base):
    """Makes a `socketserver.TCPServer` take a session's streams for its connections.

    `serve_forever` returns when the session ends; closing the server leaves the session open.
    If the handler is one of `http.server`'s, connections that wait for a next request are closed
    when the session drains.

    ::

        class Server(SessionMixIn, socketserver.ThreadingTCPServer): ...

        Server(session, Handler).serve_forever()

    The client's address is the session's; where that is no host and port, as with Unix sockets,
    handlers see its path, or "-", and port 0.

    Args:
        session: the session; its peer opens the streams.
        handler: the request handler class.
        ssl: run TLS inside the streams, with this context's certificate.
    """

    def __init__(
        self, session: Session, handler: Any, *, ssl: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("", 0), _between_requests(handler), bind_and_activate=False)
        self.socket.close()
        self.session: Session = session
        self.socket: Any = session.listener()
        self.server_address: Any = session.local_address
        self._ssl = ssl
        self._ending = False
        self._idle: set[Any] = set()
        # Readable once the session drains, for handlers that wait with select().
        self._drained: socket.socket | None = None
        self._drain: socket.socket | None = None
        if ssl is not None:
            self._drained, self._drain = socket.socketpair()
            self._drain.setblocking(False)
        close_idle_when_draining(session, self)

    def get_request(self) -> tuple[Any, Any]:
        """Take a stream that waits, and the peer's address.

        Raises:
            OSError: none waits any more, or the session has ended.
        """
        try:
            # This must not wait. The stream that made select() return may be reset already,
            # and shutdown() would wait as well.
            stream, address = self.socket.accept_nowait()
        except SessionError:
            if not self._ending:  # serve_forever() can only be stopped from another thread
                self._ending = True
                threading.Thread(target=self.shutdown, daemon=True).start()
            raise
        if not isinstance(address, tuple):
            address = (os.fsdecode(address) if address else "-", 0)
        if self._ssl is None:
            return stream, address
        # The handshake is the handler's affair, with the first byte that it reads.
        secured = self._ssl.wrap_socket(
            stream.to_socket(), server_side=True, do_handshake_on_connect=False
        )
        secured.__class__ = _SecuredStream
        return secured, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a handler's exception, unless it only says that the session ended in order."""
        exc = sys.exc_info()[1]
        if isinstance(exc, SessionClosed):
            logger.info("a connection of %r: %s", self.session, exc)
        else:
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Stop for good. The session goes on."""
        super().server_close()
        for sock in (self._drained, self._drain):
            if sock is not None:
                sock.close()

    def close_idle(self) -> None:
        """Wake the handlers that wait for a next request, which then look. It never waits."""
        if self._drain is not None:
            try:
                self._drain.send(b"\0")
            except OSError:
                return  # the server is closed
        for connection in list(self._idle):
            if isinstance(connection, Stream):
                connection.wake_reader()

    def _request_comes(self, handler: http.server.BaseHTTPRequestHandler) -> bool:
        """Wait, reading nothing, for what follows on a connection that is kept open.

        Returns:
            False if that is nothing, since the session drains.
        """
        connection = handler.connection
        self._idle.add(connection)
        try:
            while not _has_input(handler):
                if self.session.draining:
                    return False
                if isinstance(connection, Stream):
                    connection.wait_readable()
                else:
                    _wait_for_one(connection, self._drained)
            return True
        finally:
            self._idle.discard(connection)


class _KeptAlive(BaseHandler):
    """Goes before the methods of a request handler that may keep its connection open."""

    def handle_one_request(self) -> None:
        server: Any = self.server
        try:
            if server._request_comes(self):
                super().handle_one_request()
            else:
                self.close_connection = True
        except TimeoutError as exc:  # as in the middle of a request
            self.log_error("Request timed out: %r", exc)
            self.close_connection = True


class _SecuredStream(ssl.SSLSocket):
    """What handlers get for a stream with TLS inside."""

    def setsockopt(self, *args: Any) -> None:
        """Do nothing, as a stream: the socket below is none of TCP."""


def _between_requests(handler: Any) -> Any:
    """Return a handler class which looks before each request whether the session drains."""
    if isinstance(handler, functools.partial):
        inner = _between_requests(handler.func)
        return functools.partial(inner, *handler.args, **handler.keywords)
    if isinstance(handler, type) and issubclass(handler, http.server.BaseHTTPRequestHandler):
        return type(handler.__name__, (_KeptAlive, handler), {"__doc__": handler.__doc__})
    return handler


def _has_input(handler: http.server.BaseHTTPRequestHandler) -> bool:
    """Return whether a read would give something at once: bytes, the end, or an error."""
    connection: Any = handler.connection
    plain = isinstance(connection, Stream)
    peek = getattr(handler.rfile, "peek", None)
    if peek is None or (plain and connection.readable()):  # without a buffer nothing can tell
        return True
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        held: bytes = peek(1)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    finally:
        connection.settimeout(timeout)
    return bool(held) or not plain  # TLS says otherwise that it would block


def _wait_for_one(*sockets: Any) -> None:
    """Wait until one of the sockets is readable, within the first one's timeout."""
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
        if not selector.select(sockets[0].gettimeout()):
            raise TimeoutError("timed out")


class HTTPServer(SessionMixIn, http.server.ThreadingHTTPServer):
    """`http.server.ThreadingHTTPServer` over a session's streams. See `SessionMixIn`."""

    server_name = "muxado"
    server_port = 0
