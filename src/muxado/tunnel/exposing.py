"""What leads to a client: a port of the server, whose connections are a stream each, or a name.

A port has no task: each connection's transport has a relay as its protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from ..asyncio import Relay, Session, Stream
from ..cluster import Held, Registration
from ..cluster.lines import Header
from ..errors import ErrorCode, ProtocolError, SessionError
from ..proxy_protocol import ProxyHeader, TrustedProxies
from ..relaying import arm_reset
from .invitations import format_place
from .messages import Offer

if TYPE_CHECKING:
    from .clients import Connected

__all__ = ["Exposure"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

HEADER_TIMEOUT = 10.0  # seconds for a balancer's PROXY header


class Exposure:
    """A service that a session of a client offers.

    Args:
        offer: what was asked for.
        client: whose it is.
        proxies: the balancers before its port, whose connections begin with a PROXY header.

    Attributes:
        offer: what was asked for.
        client: whose it is.
        port: the port that is listened on, 0 for a private one.
        count: how many connections there were.
        registration: a private one's name, as the node knows it.
        held: the claim of the port, where other servers might listen on it.
    """

    def __init__(
        self, offer: Offer, client: Connected, proxies: TrustedProxies | None = None
    ) -> None:
        self.offer: Offer = offer
        self.client: Connected = client
        self.port: int = 0
        self.count: int = 0
        self.registration: Registration | None = None
        self.held: Held | None = None
        self._proxies = proxies
        self._server: asyncio.Server | None = None
        self._introduced: set[Introduced] = set()  # whose header has not come yet
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[Stream] = set()  # of a private one

    @property
    def session(self) -> Session:
        """The session of the client."""
        return self.client.session

    async def listen(self, host: str, port: int, *, shared: bool) -> None:
        """Listen on a port.

        Args:
            host: the address.
            port: the port.
            shared: whether another process of this user may listen there too.

        Raises:
            OSError: it can't be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._arrive, host, port, backlog=1024, reuse_port=shared or None
        )
        self.port = port

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._relays) + len(self._streams)

    def opened(self, stream: Stream) -> None:
        """Take note of a stream that was opened to the client by its name."""
        self.count += 1
        self._streams.add(stream)
        stream.on_end(partial(self._streams.discard, stream))

    def close(self, *, cut: bool = True) -> None:
        """Stop to listen, and give the name up. Harmless if repeated.

        Args:
            cut: whether the connections are reset.
        """
        if self.registration is not None:
            self.registration.remove()
            self.registration = None
        if self._server is not None:
            server, self._server = self._server, None
            left = [] if cut else [socket.socket(fileno=os.dup(s.fileno())) for s in server.sockets]
            server.close()
            for listening in left:
                self._take_waiting(listening)
        if cut:
            for each in list(self._introduced):
                each.give_up()
            for relay in list(self._relays):
                relay.cancel()
            for stream in list(self._streams):
                stream.reset(ErrorCode.STREAM_CANCELLED)

    def _take_waiting(self, listening: socket.socket) -> None:
        """Take the connections that wait on a listening socket, and close it."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        with listening, contextlib.suppress(OSError):  # there are no more, or no more can be had
            while True:
                sock, _ = listening.accept()
                task = loop.create_task(self._connect(sock), name="muxado tunnel: connection")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is gone again
            await asyncio.get_running_loop().connect_accepted_socket(self._arrive, sock)

    def _arrive(self) -> asyncio.BaseProtocol:
        if self._proxies is not None:
            return Introduced(self, self._proxies, self._introduced)
        return Arrival(self)

    def take(self, transport: asyncio.Transport, source: Any = None, data: bytes = b"") -> None:
        """Pass a new connection on.

        Args:
            transport: the connection.
            source: where it comes from, if that is not its peer.
            data: what it has sent already.
        """
        peer: Any = source or transport.get_extra_info("peername") or ("", 0)
        service, client = self.offer.service, self.client
        if not self.offer.admits(peer[0]):
            client.denials.tell("source", peer[0], f"{peer[0]} may not connect to {service}")
            hang_up(transport)
            return
        if client.is_full:
            client.denials.tell("limit", client.name, f"{client.name} has too many connections")
            hang_up(transport)
            return
        try:
            stream = client.session.open()
            stream.write_nowait(Header(service, origin=format_place(peer[:2])).pack())
            self.count += 1
        except SessionError:
            hang_up(transport)
            return
        relay = Relay(stream, on_end=lambda _: self._relays.discard(relay))
        self._relays.add(relay)
        transport.set_protocol(relay)
        try:
            relay.connection_made(transport)
            if data:
                relay.data_received(data)
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


class Introduced(asyncio.Protocol):
    """The protocol of a connection through a balancer, until its PROXY header is there.

    Args:
        exposure: what it is for.
        proxies: who may send such headers.
        waiting: where it is while it waits.
    """

    def __init__(
        self, exposure: Exposure, proxies: TrustedProxies, waiting: set[Introduced]
    ) -> None:
        self._exposure = exposure
        self._proxies = proxies
        self._waiting = waiting
        self._header = ProxyHeader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header, for a while."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        self._waiting.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEADER_TIMEOUT, self._refuse, "its PROXY header is missing")
        try:
            self._proxies.check(transport.get_extra_info("socket"))
        except (ProtocolError, OSError) as exc:
            self._refuse(str(exc))

    def data_received(self, data: bytes) -> None:
        """Take bytes of the header; once it is whole, have the connection passed on."""
        transport, header = self._transport, self._header
        if transport is None:
            return
        try:
            while header.wanted and data:
                now, data = data[: header.wanted], data[header.wanted :]
                header.feed(now)
        except ProtocolError as exc:
            self._refuse(str(exc))
            return
        if not header.wanted:
            self._forget()
            self._exposure.take(transport, header.source, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that it is gone."""
        self._forget()

    def give_up(self) -> None:
        """Reset the connection."""
        transport = self._transport
        self._forget()
        if transport is not None:
            hang_up(transport)

    def _refuse(self, why: str) -> None:
        client, service = self._exposure.client, self._exposure.offer.service
        client.denials.tell("source", client.name, f"a connection to {service} is not taken: {why}")
        self.give_up()

    def _forget(self) -> None:
        self._transport = None
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
