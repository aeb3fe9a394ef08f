"""A port of a client's machine that leads through the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..asyncio import Stream, relay
from ..errors import MuxadoError
from ..relaying import arm_reset
from .messages import UNREACHABLE

__all__ = ["REFUSALS", "Forward"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

# Why a stream was reset that leads through the server, by its code.
REFUSALS = {
    403: "the server gives no right to it",
    404: "no client offers it now",
    UNREACHABLE: "it can't be reached from the far end, whose log says why",
}


class Forward:
    """A port of this machine that leads to something. From `Client.forward` and `socks`.

    Attributes:
        service: what it leads to.
        address: host and port that are listened on.
    """

    def __init__(self, service: str) -> None:
        """Not for users."""
        self.service: str = service
        self.address: tuple[str, int] = ("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int, connect: Callable[[], Awaitable[Stream]]) -> None:
        """Listen, and pass each connection on to a stream. Not for users.

        Raises:
            OSError: the port can't be listened on.
        """

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            try:
                stream = await connect()
            except (MuxadoError, OSError) as exc:
                logger.warning("%s can't be reached: %s", self.service, exc)
                arm_reset(writer.get_extra_info("socket"))
                writer.transport.abort()
                return
            result = await relay(stream, (reader, writer))
            if result.code in REFUSALS and not result.from_stream:
                logger.warning("%s can't be reached: %s", self.service, REFUSALS[result.code])

        self._server = await asyncio.start_server(arrive, host, port, backlog=1024)
        self.address = self._server.sockets[0].getsockname()[:2]

    def close(self, *, cut: bool = False) -> None:
        """Listen no more. Harmless if repeated.

        Args:
            cut: whether its connections are reset; otherwise they go on.
        """
        if self._server is not None:
            self._server.close()
        if cut:
            for task in self._tasks:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until its connections are gone. Not for users."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
