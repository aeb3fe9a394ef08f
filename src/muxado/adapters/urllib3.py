"""urllib3 over a session: a pool manager whose connections are streams."""

from __future__ import annotations

from typing import Any

from ..errors import MuxadoError
from ..extras import needs
from ..sync import Session
from ._idle import close_idle_when_draining

with needs("urllib3"):
    import urllib3
    import urllib3.connection
    from urllib3.exceptions import NewConnectionError

__all__ = ["PoolManager", "pool_classes"]


class PoolManager(urllib3.PoolManager):
    """A `urllib3.PoolManager` that opens streams, whatever host and port are asked for.

    `https` is TLS inside the stream, through `Stream.to_socket()`: two threads each. Idle
    connections are closed when the session drains.

    Args:
        session: the session.
        kwds: what `urllib3.PoolManager` takes.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self.pool_classes_by_scheme: dict[str, Any] = pool_classes(session)


def pool_classes(session: Session) -> dict[str, Any]:
    """Return what `urllib3.PoolManager.pool_classes_by_scheme` should be for a session."""

    def opened(connection: urllib3.connection.HTTPConnection) -> Any:
        try:
            return session.open()
        except MuxadoError as exc:
            raise NewConnectionError(connection, str(exc)) from exc

    class HTTPConnection(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> Any:
            stream = opened(self)
            if self.timeout is None or isinstance(self.timeout, int | float):
                stream.settimeout(self.timeout)
            return stream

        @property
        def is_connected(self) -> bool:
            """Whether the stream waits for a request: whatever comes unasked is its end."""
            sock: Any = self.sock
            return sock is not None and not sock.readable()

    class HTTPSConnection(urllib3.connection.HTTPSConnection):
        def _new_conn(self) -> Any:
            sock = opened(self).to_socket()
            if self.timeout is None or isinstance(self.timeout, int | float):
                sock.settimeout(self.timeout)
            return sock

    class Draining(urllib3.HTTPConnectionPool):
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            close_idle_when_draining(session, self)

        def _put_conn(self, conn: Any) -> None:
            super()._put_conn(conn)
            if session.draining:
                self.close_idle()

        def close_idle(self) -> None:
            """Close the connections that wait in the pool; those that are out come back."""
            queue = self.pool
            if queue is None:
                return
            if not queue.mutex.acquire(blocking=False):
                session.on_draining(self.close_idle)  # again, soon
                return
            try:
                for connection in queue.queue:
                    if connection is not None:
                        connection.close()
            finally:
                queue.mutex.release()

    class HTTPConnectionPool(Draining):
        ConnectionCls = HTTPConnection

    class HTTPSConnectionPool(Draining, urllib3.HTTPSConnectionPool):
        ConnectionCls = HTTPSConnection

    return {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
