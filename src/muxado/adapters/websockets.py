"""A session as the listening socket of `websockets.sync.server.serve`.

The client's side needs no adapter: `websockets.sync.client.connect(uri, sock=...)` takes
`Stream.to_socket()`, and `websockets.asyncio.client.ClientConnection` is a protocol for
`Session.create_connection`.
"""

from __future__ import annotations

import logging
import socket
from ssl import SSLContext
from typing import Any

from ..errors import UsageError
from ..extras import needs
from ..sync import Session

with needs("websockets"):
    import websockets.sync  # noqa: F401  # it is what this is for, and a missing one is named

__all__ = ["ListeningSocket"]

logger: logging.Logger = logging.getLogger("muxado")


class ListeningSocket:
    """Gives the streams that the peer opens as real sockets; two threads each carry them.

    ::

        with websockets.sync.server.serve(handler, sock=ListeningSocket(session)) as server:
            server.serve_forever()

    TLS inside the streams is this one's affair, and not `serve`'s: give it the context here.

    Args:
        session: the session. Closing this leaves it open.
        ssl: run TLS inside the streams, with this context's certificate.
    """

    # What the accepted sockets are; a system without Unix sockets makes its pairs of TCP.
    family: socket.AddressFamily = getattr(socket, "AF_UNIX", socket.AF_INET)

    def __init__(self, session: Session, *, ssl: SSLContext | None = None) -> None:
        self._listener = session.listener()
        self._ssl = ssl

    def accept(self) -> tuple[socket.socket, Any]:
        """Wait for a stream; return its socket and the peer's address.

        Raises:
            OSError: this is closed, or the session has ended; which ends the server.
        """
        while True:
            stream, address = self._listener.accept()
            try:
                sock = stream.to_socket()
                if self._ssl is not None:
                    # The handshake is done by the connection's own thread, when it first reads.
                    sock = self._ssl.wrap_socket(
                        sock, server_side=True, do_handshake_on_connect=False
                    )
                return sock, address
            except OSError as exc:  # no more threads: others may end some
                logger.warning("there is no socket for a stream: %s", exc)

    def fileno(self) -> int:
        """Return a descriptor that is readable while streams wait."""
        return self._listener.fileno()

    def getsockopt(self, *args: Any) -> int:
        """Raise: there is no socket that `ssl` could wrap.

        Raises:
            UsageError: always, and it says what to do instead.
        """
        raise UsageError(
            "a session can't be wrapped as a listening socket: give the context to"
            " ListeningSocket(session, ssl=context), and none to serve(); or wrap what"
            " Stream.to_socket() returns"
        )

    def getsockname(self) -> str:
        """Return a name for the log."""
        return f"muxado session at {self._listener.getsockname()}"

    def close(self) -> None:
        """Accept no further stream."""
        self._listener.close()
