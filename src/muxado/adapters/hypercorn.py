"""hypercorn over sessions: its own connections, with a stream for each."""

from __future__ import annotations

import asyncio
import logging
import socket
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Session
from ..errors import SessionError
from ..extras import needs
from ._asgi import over_session
from ._idle import close_idle_when_draining

with needs("hypercorn"):
    from hypercorn.asyncio.lifespan import Lifespan
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.asyncio.worker_context import WorkerContext
    from hypercorn.config import Config
    from hypercorn.utils import wrap_app

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Server"]

logger: logging.Logger = logging.getLogger("muxado")


class Server:
    """Runs an ASGI or WSGI application by hypercorn's machinery, for any number of sessions.

    ::

        async with Server(app) as server:
            await server.serve_session(session)

    The block is the application's lifespan. Idle connections are closed when their session
    drains. The scope's `extensions["muxado"]` is a dict with the `session`, and the `peercert`
    of its connection.

    Args:
        app: the application.
        config: hypercorn's settings; what is about sockets is without effect, except those for
            TLS.
    """

    def __init__(self, app: Any, config: Config | None = None) -> None:
        self.config: Config = config or Config()
        self._app = wrap_app(app, self.config.wsgi_max_body_size, None)
        self._state: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lifespan = Lifespan(self._app, self.config, self._loop, self._state)
        self._task = self._loop.create_task(self._lifespan.handle_lifespan())
        await self._lifespan.wait_for_startup()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._lifespan.wait_for_shutdown()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def serve_session(self, session: Session, *, ssl: SSLContext | None = None) -> None:
        """Run the application for the streams that the peer opens, until the session ends.

        Cancelled, it cancels the connections that are open. One that fails is logged, and the
        others go on.

        Args:
            session: the session. It is left open.
            ssl: run TLS inside the streams, with this context's certificate. By default that is
                done if the config has hypercorn's own settings for TLS, such as `certfile`.

        Returns:
            when the session has ended in order and the connections are done.

        Raises:
            SessionError: the session ended otherwise; the connections are done then too.
        """
        if ssl is None:
            ssl = self.config.create_ssl_context()
        app: Any = over_session(self._app, session)
        kept = _Kept()
        close_idle_when_draining(session, kept)
        # A connection that comes later has a first request to answer, and is not idle.
        late = WorkerContext(None)
        broken: SessionError | None = None
        async with asyncio.TaskGroup() as group:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                context = late if session.draining else kept.context
                seen: Any = _Writer(writer, session)
                state = self._state
                connection = TCPServer(app, self._loop, self.config, context, state, reader, seen)
                group.create_task(_run(connection, session))

            server = session.start_server(connected, ssl=ssl)
            ending = group.create_task(kept.close_when_told())
            try:
                await server.serve_forever()
            except SessionError as exc:
                broken = exc  # raised below, or the group would wrap it
            finally:
                server.close()
                ending.cancel()
                for context in (kept.context, late):
                    await context.terminated.set()  # connections that idle end now
        if broken is not None:
            raise broken


async def _run(connection: TCPServer, session: Session) -> None:
    try:
        await connection
    except ConnectionError:
        pass  # the session may end first
    except Exception:  # the group would end the other connections with it
        logger.exception("a connection over %r failed", session)


class _Kept:
    """The connections of a session that are kept open for a next request."""

    def __init__(self) -> None:
        self.context = WorkerContext(None)  # which they ask whether to go on
        self._told = asyncio.Event()

    def close_idle(self) -> None:
        """Close those that are idle, and the others after their response."""
        self._told.set()

    async def close_when_told(self) -> None:
        """Close them once `close_idle` was called."""
        await self._told.wait()
        await self.context.terminated.set()


class _Writer:
    """A stream's writer, with the addresses that hypercorn looks for in a socket."""

    family = socket.AF_UNSPEC

    def __init__(self, writer: asyncio.StreamWriter, session: Session) -> None:
        self._writer = writer
        self._session = session
        sock: Any = session.get_extra_info("socket")
        if sock is not None:
            self.family = sock.family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else self._writer.get_extra_info(name, default)

    def getpeername(self) -> Any:
        return self._session.remote_address

    def getsockname(self) -> Any:
        return self._session.local_address
