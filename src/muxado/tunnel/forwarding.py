"""A port of a client's machine that leads through the server.

A connection has a task until it has a stream, and a relay from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..asyncio import Relay, Stream
from ..errors import ErrorCode, MuxadoError
from ..relaying import RelayResult, arm_reset
from .invitations import format_place
from .messages import SOCKS, UNREACHABLE
from .outages import why

__all__ = ["REFUSALS", "Forward"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

# Why a stream was reset that leads through the server, by its code.
REFUSALS = {
    403: "the server gives no right to it",
    404: "no client offers it now",
    429: "this client has as many connections as it may have",
    ErrorCode.REMOTE_GONE_AWAY: "the client that offers it is away",
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
        self._connect: Callable[[], Awaitable[Stream]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays: set[Relay] = set()

    async def listen(self, host: str, port: int, connect: Callable[[], Awaitable[Stream]]) -> None:
        """Listen, and pass each connection on to a stream. Not for users.

        Raises:
            OSError: the port can't be listened on.
        """
        self._connect = connect
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Caller(self._take), host, port, backlog=1024
        )
        self.address = self._server.sockets[0].getsockname()[:2]

    @property
    def listening(self) -> bool:
        """Whether it is listened on, which `close` ends."""
        return self._server is not None and self._server.is_serving()

    def status(self) -> dict[str, Any]:
        """Return what `Client.status` says of it, besides the right that it lacks."""
        return {
            "address": format_place(self.address),
            "service": "socks" if self.service == SOCKS else self.service,
        }

    def _take(self, caller: Caller) -> None:
        """Open a stream for a new connection."""
        task = asyncio.create_task(self._join(caller), name="muxado tunnel: connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, caller: Caller) -> None:
        assert self._connect is not None
        try:
            stream = await self._connect()
        except (MuxadoError, OSError) as exc:
            logger.warning("%s can't be reached: %s", self.service, why(exc))
            caller.reset()
            return
        except asyncio.CancelledError:
            caller.reset()
            raise

        def ended(result: RelayResult) -> None:
            self._relays.discard(relay)
            if not stream.session.closed and result.code in REFUSALS and not result.from_stream:
                logger.warning("%s can't be reached: %s", self.service, REFUSALS[result.code])

        relay = Relay(stream, on_end=ended)
        self._relays.add(relay)
        caller.hand_over(relay)

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
            for relay in list(self._relays):
                relay.cancel()

    async def wait_closed(self) -> None:
        """Wait until its connections are gone. Not for users."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for relay in list(self._relays):
            await relay.wait_closed()


class Caller(asyncio.Protocol):
    """The protocol of a connection that came in, until it has a relay: keeps what comes early.

    Args:
        take: called with it once it is connected.
    """

    def __init__(self, take: Callable[[Caller], object]) -> None:
        self._take = take
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have a stream opened for it."""
        assert hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        self._take(self)

    def data_received(self, data: bytes) -> None:
        """Keep what came, and have no more come."""
        self._early.append(data)
        assert self._transport is not None
        self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Take note of the end, which is passed on later."""
        self._ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that it is gone."""
        self._transport = None

    def hand_over(self, relay: Relay) -> None:
        """Have a relay take the connection."""
        transport = self._transport
        if transport is None:
            relay.cancel()
            return
        transport.set_protocol(relay)
        relay.connection_made(transport)
        if self._early and not self._ended:
            transport.resume_reading()  # before the relay may have a pause of its own
        for data in self._early:
            relay.data_received(data)
        if self._ended:
            relay.eof_received()

    def reset(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            arm_reset(self._transport.get_extra_info("socket"))
            self._transport.abort()
