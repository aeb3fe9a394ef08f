"""What both listeners of trio's front end share: connections come in, sessions run over them."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import trio

from .. import forks
from ..admission import Admission
from ..config import Config
from ..endpoint import ACCEPT_RETRY, HANDSHAKE_TIMEOUT, MOST_PENDING, Place
from ..errors import ProtocolError
from ..handshakes import Handshakes, hung_up
from ..proxy_protocol import ProxyHeader, TrustedProxies
from ..snapshots import ServerStats
from .block import SessionBlock
from .driver import close_forcefully
from .secured import secure
from .session import Session

logger: logging.Logger = logging.getLogger("muxado")

Upgrade: TypeAlias = Callable[[trio.abc.Stream], Awaitable[trio.abc.Stream]]
"""Does the handshake of what a listener's sessions go over; returns that as a stream."""

# What `accept` fails with when the listening socket itself is broken. Everything else concerns
# one connection, or passes; Linux hands out errors of the network there, too.
FATAL = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


class Waiting:
    """The sessions that wait to be accepted, and the wait until there may be more of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._room = trio.Event()

    def add(self) -> Slot:
        """Count one in; it counts until its slot is given back."""
        self._count += 1
        return Slot(self)

    def remove(self) -> None:
        """Count one out."""
        self._count -= 1
        self._room.set()
        self._room = trio.Event()

    async def room(self) -> None:
        """Wait until there may be one more."""
        while self._count >= self._most:
            await self._room.wait()


class Slot:
    """The right of one session to wait to be accepted."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting: Waiting | None = waiting

    def release(self) -> None:
        """Give it back. Harmless if repeated."""
        if self._waiting is not None:
            self._waiting.remove()
            self._waiting = None


@trio.lowlevel.disable_ki_protection
async def run_handler(handler: Callable[[Session], Awaitable[object]], session: Session) -> None:
    """Run code of the program's, which KeyboardInterrupt may interrupt anywhere."""
    await handler(session)


class Acceptor:
    """Accepts connections until it is closed, and runs a session over each.

    Connections in their TLS handshake are bounded by giving up one of them for a new one;
    sessions that wait to be accepted, by leaving further connections to the kernel.

    Args:
        sockets: where to accept them.
        place: how they listen.
        config: the sessions' settings.
        admission: counts and limits the sessions.
        run: an async function, called with each session and its slot, which it gives back when
            the session waits no more; the session ends with it.
        upgrade: the handshake of what the sessions go over, where that has one of its own.
    """

    def __init__(
        self,
        sockets: list[trio.socket.SocketType],
        place: Place,
        config: Config | None,
        admission: Admission,
        run: Callable[[Session, Slot], Awaitable[None]],
        upgrade: Upgrade | None = None,
    ) -> None:
        self._sockets = sockets
        self._addresses = [sock.getsockname() for sock in sockets]
        self._context = place.context
        self._proxies = place.proxies
        self._upgrade = upgrade
        self._greets = bool(place.context or place.proxies or upgrade)
        self._config = config
        self._admission = admission
        self._run = run
        self._waiting = Waiting(MOST_PENDING)
        self._handshakes: Handshakes[trio.CancelScope] = Handshakes(MOST_PENDING)
        self._scopes: set[trio.CancelScope] = set()  # of what ends when it is closed
        self._closed = False
        self._connections: set[trio.socket.SocketType] = set()
        forks.watch(self)

    def forget_in_child(self) -> None:
        """Leave all connections to the parent process, after a fork."""
        forks.disconnect(map(forks.descriptor, [*self._sockets, *self._connections]))

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The listening sockets, () once closed."""
        return () if self._closed else tuple(self._sockets)

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, [] once closed."""
        return [] if self._closed else list(self._addresses)

    def stats(self) -> ServerStats:
        """Return the figures of all of it."""
        return self._admission.stats(len(self._handshakes))

    def open(self, nursery: trio.Nursery) -> None:
        """Start to accept; the sessions will run in the nursery, too."""
        for sock in self._sockets:
            nursery.start_soon(self._accept, nursery, sock, name="muxado listening")

    def close(self) -> None:
        """Stop listening, and give up on connections that are still in their handshake."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()
        for sock in self._sockets:
            sock.close()

    @contextmanager
    def _until_closed(self) -> Iterator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._closed:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, nursery: trio.Nursery, listening: trio.socket.SocketType) -> None:
        with self._until_closed():
            while True:
                await self._waiting.room()
                try:
                    sock, peer = await listening.accept()
                except OSError as exc:
                    if self._closed:
                        return  # in this very turn, after a connection had come in
                    if exc.errno in FATAL:
                        raise
                    if exc.errno in (errno.EMFILE, errno.ENFILE):
                        self._give_up(self._handshakes.oldest())  # it has a descriptor to spare
                    logger.warning("accepting a connection failed: %s", exc)
                    await trio.sleep(ACCEPT_RETRY)  # out of descriptors, say: others may free some
                    continue
                # With nothing to say first it is a session at once.
                slot = None if self._greets else self._waiting.add()
                scope = trio.CancelScope()
                if self._greets:
                    self._give_up(self._handshakes.begin(scope))
                nursery.start_soon(
                    self._greet, sock, peer, scope, slot, name=f"muxado session {peer}"
                )

    def _give_up(self, scope: trio.CancelScope | None) -> None:
        if scope is not None:
            scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _greet(
        self,
        sock: trio.socket.SocketType,
        peer: Any,
        scope: trio.CancelScope,
        slot: Slot | None,
    ) -> None:
        transport: trio.abc.Stream = trio.SocketStream(sock)
        self._connections.add(sock)
        try:
            header: ProxyHeader | None = None
            if self._greets:
                try:
                    with self._until_closed(), scope:
                        scope.deadline = trio.current_time() + HANDSHAKE_TIMEOUT
                        if self._proxies is not None:
                            header = await self._proxy_header(sock, self._proxies)
                        if self._context or self._upgrade:
                            await self._hear(sock, scope)
                        if self._context is not None:
                            transport = secure(transport, self._context, server_side=True)
                            await transport.do_handshake()
                        if self._upgrade is not None:
                            transport = await self._upgrade(transport)
                except (trio.BrokenResourceError, OSError, EOFError, ProtocolError) as exc:
                    self._admission.handshake_failed(peer, exc.__cause__ or exc)
                    return
                finally:
                    self._handshakes.end(scope)
                if scope.cancelled_caught:
                    logger.info("handshake with %s was given up", peer)
                    return
            if self._closed:
                return
            if slot is None:
                slot = self._waiting.add()
            block = SessionBlock.over(
                transport,
                client=False,
                config=self._config,
                admission=self._admission,
                proxy_header=header,
            )
            async with block as session:
                if not session.closed:  # else it was not admitted
                    await self._run(session, slot)
        finally:
            self._connections.discard(sock)
            if slot is not None:
                slot.release()
            await close_forcefully(transport)

    async def _proxy_header(
        self, sock: trio.socket.SocketType, proxies: TrustedProxies
    ) -> ProxyHeader:
        """Read the header that a connection through a proxy begins with."""
        proxies.check(sock)
        header = ProxyHeader()
        while header.wanted:
            header.feed(await sock.recv(header.wanted))
        return header

    async def _hear(self, sock: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        """Wait until a connection has said something, and leave that unread."""
        if not await sock.recv(1, socket.MSG_PEEK):
            raise hung_up()
        self._handshakes.spoke(scope)
