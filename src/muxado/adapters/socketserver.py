"""The standard library's servers over a session: `socketserver` and `http.server`."""

from __future__ import annotations

import http.server
import socketserver
import threading
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

from ..errors import SessionError
from ..sync import Session

if TYPE_CHECKING:
    Base = socketserver.TCPServer
else:
    Base = object

__all__ = ["HTTPServer", "SessionMixIn"]


class SessionMixIn(Base):
    """Makes a `socketserver.TCPServer` take a session's streams for its connections.

    `serve_forever` returns when the session ends; closing the server leaves the session open.

    ::

        class Server(SessionMixIn, socketserver.ThreadingTCPServer): ...

        Server(session, Handler).serve_forever()

    Args:
        session: the session; its peer opens the streams.
        handler: the request handler class.
        ssl: run TLS inside the streams, with this context's certificate.
    """

    def __init__(self, session: Session, handler: Any, *, ssl: SSLContext | None = None) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.session: Session = session
        self.socket: Any = session.listener()
        self.server_address: Any = session.local_address
        self._ssl = ssl
        self._ending = False

    def get_request(self) -> tuple[Any, Any]:
        """Take a stream that waits, and the peer's address.

        Raises:
            OSError: none waits any more, or the session has ended.
        """
        try:
            # Without waiting: the stream that made select() return may be reset already,
            # and shutdown() would wait as well.
            stream, address = self.socket.accept_nowait()
        except SessionError:
            if not self._ending:  # serve_forever() can only be stopped from another thread
                self._ending = True
                threading.Thread(target=self.shutdown, daemon=True).start()
            raise
        if self._ssl is None:
            return stream, address
        # The handshake is the handler's affair, with the first byte that it reads.
        return self._ssl.wrap_socket(
            stream.to_socket(), server_side=True, do_handshake_on_connect=False
        ), address


class HTTPServer(SessionMixIn, http.server.ThreadingHTTPServer):
    """`http.server.ThreadingHTTPServer` over a session's streams. See `SessionMixIn`."""

    server_name = "muxado"
    server_port = 0
