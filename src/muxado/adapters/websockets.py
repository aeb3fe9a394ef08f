"""A session as the listening socket of `websockets.sync.server.serve`.

The client's side needs no adapter: `websockets.sync.client.connect(uri, sock=...)` takes
`Stream.to_socket()`, and `websockets.asyncio.client.ClientConnection` is a protocol for
`Session.create_connection`.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from ..sync import Session

__all__ = ["ListeningSocket"]

logger: logging.Logger = logging.getLogger("muxado")


class ListeningSocket:
    """Gives the streams that the peer opens as real sockets; two threads each carry them.

    ::

        with websockets.sync.server.serve(handler, sock=ListeningSocket(session)) as server:
            server.serve_forever()

    Args:
        session: the session. Closing this leaves it open.
    """

    family: socket.AddressFamily = socket.AF_UNIX  # what the accepted sockets are

    def __init__(self, session: Session) -> None:
        self._listener = session.listener()

    def accept(self) -> tuple[socket.socket, Any]:
        """Wait for a stream; return its socket and the peer's address.

        Raises:
            OSError: this is closed, or the session has ended; which ends the server.
        """
        while True:
            stream, address = self._listener.accept()
            try:
                return stream.to_socket(), address
            except OSError as exc:  # no more threads: others may end some
                logger.warning("there is no socket for a stream: %s", exc)

    def fileno(self) -> int:
        """Return a descriptor that is readable while streams wait."""
        return self._listener.fileno()

    def getsockname(self) -> str:
        """Return a name for the log."""
        return f"muxado session at {self._listener.getsockname()}"

    def close(self) -> None:
        """Accept no further stream."""
        self._listener.close()
