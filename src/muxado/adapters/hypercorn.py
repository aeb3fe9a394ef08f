"""hypercorn over sessions: its own connections, with a stream for each."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from ..asyncio import Session
from ..errors import SessionError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Server"]

logger: logging.Logger = logging.getLogger("muxado")


class Server:
    """Runs an ASGI or WSGI application by hypercorn's machinery, for any number of sessions.

    ::

        async with Server(app) as server:
            await server.serve_session(session)

    The block is the application's lifespan.

    Args:
        app: the application.
        config: hypercorn's settings; what is about sockets is without effect.
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

    async def serve_session(self, session: Session) -> None:
        """Run the application for the streams that the peer opens, until the session ends.

        Cancelled, it cancels the connections that are open. One that fails is logged, and hurts
        nobody else.

        Args:
            session: the session. It is left open.

        Returns:
            when the session has ended in order and the connections are done.

        Raises:
            SessionError: the session ended otherwise; the connections are done then too.
        """
        context = WorkerContext(None)
        broken: SessionError | None = None
        async with asyncio.TaskGroup() as group:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._run(session, context, reader, writer))

            server = session.start_server(connected)
            try:
                await server.serve_forever()
            except SessionError as exc:
                broken = exc  # raised below, or the group would wrap it
            finally:
                server.close()
                await context.terminated.set()  # connections that idle end now
        if broken is not None:
            raise broken

    async def _run(
        self,
        session: Session,
        context: WorkerContext,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        seen: Any = _Writer(writer, session)
        server = TCPServer(self._app, self._loop, self.config, context, self._state, reader, seen)
        try:
            await server
        except ConnectionError:
            pass  # the session may end first
        except Exception:  # nobody else's: the group would end the other connections with it
            logger.exception("a connection over %r failed", session)


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
