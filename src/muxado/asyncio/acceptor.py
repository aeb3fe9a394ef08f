"""New connections of a listener: their handshakes, and the bounds of both."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .. import forks
from ..admission import Admission
from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, MOST_PENDING, Place
from ..errors import ProtocolError, UsageError
from ..handshakes import Handshakes, hung_up
from ..proxy_protocol import ProxyHeader, TrustedProxies
from ..snapshots import ServerStats
from .driver import Driver
from .links import TransportLink
from .reaching import hang_up
from .secured import over_tls
from .session import Session, new_session

logger: logging.Logger = logging.getLogger("muxado")


class _Arrival(asyncio.Protocol):
    """Takes a new connection off the loop again, unread, until it has its turn.

    A transport that is only paused won't do: uvloop begins to read after `connection_made`
    all the same, and the start of a TLS handshake would be lost.
    """

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        try:
            sock: socket.socket = transport.get_extra_info("socket").dup()
        except OSError as exc:
            logger.warning("a connection was dropped: %s", exc)  # no descriptor is left
            self._acceptor.make_room()
            return
        finally:
            transport.abort()  # type: ignore[attr-defined]
        self._acceptor.admit(sock)


class GreetingLink(Protocol):
    """An asyncio protocol that carries a session once its own handshake is done."""

    opened: asyncio.Future[None]
    """Done when the handshake is."""


class Acceptor:
    """Accepts connections and makes sessions of them; the common part of both listeners.

    Connections in their TLS handshake are bounded by giving up one of them for a new one;
    sessions that wait to be accepted, by leaving further connections unread.
    """

    def __init__(
        self,
        on_session: Callable[[Session], None],
        config: Config | None,
        place: Place,
        tls_options: dict[str, Any],
        admission: Admission,
        new_link: Callable[[Driver], GreetingLink] | None = None,
    ) -> None:
        self._on_session = on_session
        self._config = config or Config()
        self._context = place.context
        self._proxies = place.proxies
        self._tls_options = tls_options
        self._admission = admission
        self._new_link = new_link
        self._timeout = tls_options.get("ssl_handshake_timeout", HANDSHAKE_TIMEOUT)
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}
        self._handshakes: Handshakes[socket.socket] = Handshakes(MOST_PENDING, _has_input)
        self._queued: dict[socket.socket, asyncio.Task[None]] = {}  # wait for the following
        self._closed = False
        self._waiting = 0  # sessions that wait to be accepted
        self._room = asyncio.Event()  # set while there may be more of them
        self._room.set()
        forks.watch(self)

    async def open(self, kwds: dict[str, Any]) -> None:
        """Start to listen where and how the arguments of the loop's `create_server` say."""
        loop = asyncio.get_running_loop()
        arrival = partial(_Arrival, self)
        sock = kwds["sock"]
        unix = sock is not None and sock.family == getattr(socket, "AF_UNIX", None)
        # Started in a step of its own: if this is cancelled while asyncio starts a server
        # itself, asyncio leaves it listening for ever.
        start = kwds.pop("start_serving", True)
        if "path" in kwds or unix:
            try:
                server = await loop.create_unix_server(arrival, start_serving=False, **kwds)
            except NotImplementedError:
                raise UsageError("this event loop has no Unix sockets") from None
        else:
            server = await loop.create_server(arrival, start_serving=False, **kwds)
        self._server = server
        if start:
            try:
                await server.start_serving()
            except BaseException:
                server.close()
                raise

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(self._server.sockets) if self._server is not None else ()

    def close(self) -> None:
        """Stop listening, and give up on connections that are still in their handshake."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        self._room.set()
        for task, sock in self._tasks.items():
            # Cancelled in its handshake, asyncio's TLS would leave its transport behind.
            if not task.done():
                hang_up(sock)

    async def wait_closed(self) -> None:
        """Wait until no connection is in its handshake any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def forget_in_child(self) -> None:
        """Leave all connections to the parent process, after a fork."""
        owned = [*self.sockets, *self._tasks.values()]
        forks.disconnect(map(forks.descriptor, owned))

    def admit(self, sock: socket.socket) -> None:
        """Take in a new connection."""
        if self._closed:
            sock.close()
            return
        self._give_up(self._handshakes.begin(sock))
        task = asyncio.get_running_loop().create_task(
            self._handshake(sock), name="muxado handshake"
        )
        if not task.done():  # as an eager one may be
            self._tasks[task] = sock
            task.add_done_callback(self._tasks.pop)

    def make_room(self) -> None:
        """Give up a connection in its handshake, for the descriptor that it has."""
        self._give_up(self._handshakes.oldest())

    def stats(self) -> ServerStats:
        """Return the figures of all of it."""
        return self._admission.stats(len(self._handshakes))

    def taken(self) -> None:
        """Take note that a session waits no more."""
        self._waiting -= 1
        if self._waiting < MOST_PENDING:
            self._room.set()

    def _give_up(self, sock: socket.socket | None) -> None:
        if sock is not None:
            hang_up(sock)
            if sock in self._queued:
                self._queued[sock].cancel()

    async def _carry(self, driver: Driver, sock: socket.socket) -> None:
        """Have a connection carry a session, and wait until the handshakes are done."""
        link: Any
        options: dict[str, Any] = {}
        if self._new_link is not None:
            link = self._new_link(driver)
            if self._context is not None:
                options = {"ssl": self._context, **self._tls_options}
        elif self._context is not None:
            link, options = over_tls(driver, self._context, self._tls_options, server_side=True)
        else:
            link = TransportLink(driver)
        await driver.loop.connect_accepted_socket(lambda: link, sock, **options)
        if link.opened is not None:
            await link.opened

    async def _wait_for_room(self, sock: socket.socket) -> None:
        """Wait until fewer sessions wait to be accepted."""
        while self._waiting >= MOST_PENDING and not self._closed:
            self._room.clear()
            task = asyncio.current_task()
            assert task is not None
            self._queued[sock] = task
            try:
                await self._room.wait()
            finally:
                del self._queued[sock]

    async def _handshake(self, sock: socket.socket) -> None:
        peer: object = None
        session: Session | None = None
        waiting = False
        header: ProxyHeader | None = None
        try:
            peer = sock.getpeername()
            async with asyncio.timeout(self._timeout):
                await self._wait_for_room(sock)
                if self._proxies is not None:
                    header = await _read_proxy_header(sock, self._proxies)
                if self._context is None and self._new_link is None:
                    waiting = True
                    self._waiting += 1
                else:
                    await _first_byte(sock)
                    self._handshakes.spoke(sock)
                session, driver = new_session(
                    client=False,
                    config=self._config,
                    pool=self._admission.pool,
                    proxy_header=header,
                )
                await self._carry(driver, sock)
        except BaseException as exc:
            if waiting:
                self.taken()
            if session is not None:
                hang_up(sock)  # its transport closes it
                driver.give_up()
            else:
                sock.close()
            if not isinstance(exc, Exception):
                raise
            # TimeoutError and ssl.SSLError too:
            if isinstance(exc, OSError | EOFError | ProtocolError):
                self._admission.handshake_failed(peer, exc)
            else:
                logger.exception("handshake with %s failed", peer)
            return
        finally:
            self._handshakes.end(sock)
        if self._closed:
            session.abort()
            await session.wait_closed()
            return
        if not self._admission.admit(driver.record):
            driver.refuse()
            if waiting:
                self.taken()
            await session.wait_closed()
            return
        if not waiting:
            self._waiting += 1
        self._on_session(session)


async def _read_proxy_header(sock: socket.socket, proxies: TrustedProxies) -> ProxyHeader:
    """Read the header that a connection through a proxy begins with."""
    proxies.check(sock)
    loop = asyncio.get_running_loop()
    header = ProxyHeader()
    while header.wanted:
        header.feed(await loop.sock_recv(sock, header.wanted))
    return header


def _has_input(sock: socket.socket) -> bool:
    """Return whether a connection has said something, which may not have been looked at yet.

    The loop takes in all connections that the kernel holds before it tells of what they say.
    """
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


async def _first_byte(sock: socket.socket) -> None:
    """Wait until a connection has said something, and leave that unread."""
    loop = asyncio.get_running_loop()
    said = loop.create_future()

    def readable() -> None:
        loop.remove_reader(sock)
        if not said.done():
            said.set_result(None)

    try:
        loop.add_reader(sock, readable)
    except NotImplementedError:
        return  # Windows' proactor: all are silent until their handshake is done
    try:
        await said
    finally:
        loop.remove_reader(sock)
    if not sock.recv(1, socket.MSG_PEEK):
        raise hung_up()
