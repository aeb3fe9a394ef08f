"""What both listeners of trio's front end share: connections come in, sessions run over them."""

from __future__ import annotations

import errno
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, MOST_PENDING
from .session import Session, run_session

logger: logging.Logger = logging.getLogger("muxado")

# What `accept` fails with when the listening socket itself is no good. Everything else concerns
# one connection, or passes; Linux hands out errors of the network there, too.
FATAL = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}
PAUSE = 0.1  # seconds, after a failure to accept a connection


class Slot:
    """The right of one connection to be in its handshake, or to wait to be accepted."""

    def __init__(self, slots: trio.Semaphore) -> None:
        self._slots: trio.Semaphore | None = slots

    def release(self) -> None:
        """Give it back. Harmless if repeated."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None


class Door:
    """Accepts connections until it is closed, and runs a session over each.

    Args:
        sockets: where to accept them.
        context: for TLS.
        config: the sessions' settings.
        run: an async function, called with each session and its slot; the session ends with it.
    """

    def __init__(
        self,
        sockets: list[trio.socket.SocketType],
        context: ssl_module.SSLContext | None,
        config: Config | None,
        run: Callable[[Session, Slot], Awaitable[None]],
    ) -> None:
        self._sockets = sockets
        self._addresses = [sock.getsockname() for sock in sockets]
        self._context = context
        self._config = config
        self._run = run
        self._slots = trio.Semaphore(MOST_PENDING)
        self._scopes: set[trio.CancelScope] = set()  # of what ends when the door is closed
        self._closed = False

    @property
    def sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The listening sockets, () once closed."""
        return () if self._closed else tuple(self._sockets)

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, [] once closed."""
        return [] if self._closed else list(self._addresses)

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

    async def _accept(self, nursery: trio.Nursery, listening: trio.socket.SocketType) -> None:
        with self._until_closed():
            while True:
                await self._slots.acquire()
                try:
                    sock, peer = await listening.accept()
                except OSError as exc:
                    self._slots.release()
                    if self._closed:
                        return  # in this very turn, after a connection had come in
                    if exc.errno in FATAL:
                        raise
                    logger.warning("accepting a connection failed: %s", exc)
                    await trio.sleep(PAUSE)  # out of descriptors, say: others may free some
                    continue
                nursery.start_soon(
                    self._greet, sock, peer, Slot(self._slots), name=f"muxado session {peer}"
                )

    async def _greet(self, sock: trio.socket.SocketType, peer: Any, slot: Slot) -> None:
        transport: trio.abc.Stream = trio.SocketStream(sock)
        try:
            if self._context is not None:
                transport = secured = trio.SSLStream(transport, self._context, server_side=True)
                try:
                    with self._until_closed() as scope:
                        scope.deadline = trio.current_time() + HANDSHAKE_TIMEOUT
                        await secured.do_handshake()
                except (trio.BrokenResourceError, OSError) as exc:
                    logger.info("handshake with %s failed: %r", peer, exc.__cause__ or exc)
                    return
                if scope.cancelled_caught:
                    logger.info("handshake with %s was given up", peer)
                    return
            if self._closed:
                return
            async with run_session(transport, client=False, config=self._config) as session:
                await self._run(session, slot)
        finally:
            slot.release()
            await trio.aclose_forcefully(transport)
