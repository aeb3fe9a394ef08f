"""A port of the server whose connections go to a client, a stream each.

It has no task: each connection's transport has a relay as its protocol.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ..asyncio import Relay, Session, Stream
from ..cluster.lines import Header
from ..errors import ErrorCode, SessionError
from ..relaying import arm_reset
from .invitations import format_place
from .messages import Offer

__all__ = ["Exposure"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")


class Exposure:
    """A service that a session of a client offers.

    Attributes:
        offer: what was asked for.
        session: the session.
        client: the client's name.
        port: the port that is listened on, 0 for a private one.
        count: how many connections there were.
    """

    def __init__(self, offer: Offer, session: Session, client: str) -> None:
        self.offer: Offer = offer
        self.session: Session = session
        self.client: str = client
        self.port: int = 0
        self.count: int = 0
        self._server: asyncio.Server | None = None
        self._relays: set[Relay] = set()

    async def listen(self, host: str, port: int) -> None:
        """Listen on a port.

        Raises:
            OSError: it can't be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._arrive, host, port, backlog=1024)
        self.port = port

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._relays)

    def stream(self, origin: str, identity: str = "") -> Stream:
        """Open a stream to the client for a caller.

        Raises:
            SessionError: the session takes no more.
        """
        stream = self.session.open()
        stream.write_nowait(Header(self.offer.service, origin=origin, identity=identity).pack())
        self.count += 1
        return stream

    def close(self, *, cut: bool = True) -> None:
        """Stop to listen. Harmless if repeated.

        Args:
            cut: whether the connections are reset.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        if cut:
            for relay in list(self._relays):
                relay.cancel()

    def _arrive(self) -> asyncio.BaseProtocol:
        return Arrival(self)

    def take(self, transport: asyncio.Transport) -> None:
        """Pass a new connection on."""
        peer: Any = transport.get_extra_info("peername") or ("", 0)
        if not self.offer.admits(peer[0]):
            logger.info("%s: a connection from %s is not allowed", self.offer.service, peer[0])
            hang_up(transport)
            return
        try:
            stream = self.stream(format_place(peer[:2]))
        except SessionError:
            hang_up(transport)
            return
        relay = Relay(stream, on_end=lambda _: self._relays.discard(relay))
        self._relays.add(relay)
        transport.set_protocol(relay)
        try:
            relay.connection_made(transport)
        except BaseException:
            stream.reset(ErrorCode.INTERNAL_ERROR)
            raise


def hang_up(transport: asyncio.Transport) -> None:
    """Reset a connection."""
    arm_reset(transport.get_extra_info("socket"))
    transport.abort()


class Arrival(asyncio.Protocol):
    """The protocol of a connection until it has a relay."""

    def __init__(self, exposure: Exposure) -> None:
        self._exposure = exposure

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have it passed on."""
        self._exposure.take(transport)  # type: ignore[arg-type]  # uvloop's derive from nothing
