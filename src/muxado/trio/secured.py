"""Sockets without trio's streams between, and TLS over them, many records at a time.

`trio.SSLStream` reads a record of 16 KiB at a time, and takes several turns of the loop for each.
Here one system call brings several records and one takes several away.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import trio

from ..secured_socket import READ_SIZE, SecuredSocket

T = TypeVar("T")


class Straight:
    """A socket of trio's, read and written at once or not at all, without waiting."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock: trio.socket.SocketType = sock

    def recv(self, size: int) -> bytes:
        """Return some bytes, b"" at the end, or raise `BlockingIOError`."""
        return os.read(self.sock.fileno(), size)

    def recv_into(self, buffer: memoryview) -> int:
        """Read into a buffer and return how many bytes, or raise `BlockingIOError`."""
        return os.readv(self.sock.fileno(), [buffer])

    def send(self, data: memoryview) -> int:
        """Send some bytes and return how many, or raise `BlockingIOError`."""
        return os.write(self.sock.fileno(), data)


class SecuredTrioSocket(SecuredSocket):
    """TLS over a socket of trio's, or over one of these.

    Attributes:
        sock: the socket.
    """

    def __init__(
        self,
        raw: Straight | SecuredTrioSocket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        name: str | None = None,
    ) -> None:
        super().__init__(raw, context, server_side=server_side, name=name)
        self.sock: trio.socket.SocketType = raw.sock


class Channel(Protocol):
    """What a session's bytes are read from and written to without waiting.

    What can't be done yet raises `BlockingIOError`, `SSLWantReadError` or `SSLWantWriteError`.
    """

    sock: trio.socket.SocketType
    """What is waited for then."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into a buffer; return how many bytes, 0 at the end."""

    def send(self, data: memoryview, /) -> int:
        """Send bytes, and return how many. If it raises, the same ones must be given again."""


class ChannelStream(trio.abc.HalfCloseableStream):
    """A channel as trio's stream. A session's tasks use the `channel` itself.

    Attributes:
        transport_stream: the stream underneath.
        channel: what carries the bytes.
        half_closes: whether the peer can go on sending after `send_eof`.
    """

    half_closes: bool = True

    @property
    def agreed(self) -> str | None:
        """What its handshake has chosen for the session: see `CoreSession.agree`."""
        raise NotImplementedError

    def __init__(self, stream: trio.abc.Stream, channel: Channel) -> None:
        self.transport_stream: trio.abc.Stream = stream
        self.channel: Channel = channel

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        buffer = bytearray(max_bytes or READ_SIZE)
        count = await self.until_done(lambda: self.channel.recv_into(memoryview(buffer)))
        return bytes(buffer[:count])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.until_done(lambda: self.channel.send(memoryview(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.transport_stream.aclose()

    async def until_done(self, step: Callable[[], T]) -> T:
        """Take a step again whenever the socket lets it go on."""
        sock = self.channel.sock
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return step()
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(sock)


class SecuredStream(ChannelStream):
    """TLS over a socket's stream, or over one of these.

    It has the methods that tell of a connection, as `trio.SSLStream` has them.
    """

    def __init__(
        self,
        stream: trio.SocketStream | SecuredStream,
        raw: Straight | SecuredTrioSocket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        name: str | None,
    ) -> None:
        self._secured = SecuredTrioSocket(raw, context, server_side=server_side, name=name)
        self._stream = stream
        super().__init__(stream, self._secured)

    @property
    def agreed(self) -> str | None:
        return self._secured.object.selected_alpn_protocol()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._secured.object, name)

    async def do_handshake(self) -> None:
        """Do the handshake.

        Raises:
            trio.BrokenResourceError: it failed; the cause says why.
        """
        try:
            await self.until_done(self._secured.do_handshake)
        except OSError as exc:  # ssl.SSLError too
            raise trio.BrokenResourceError(str(exc)) from exc

    async def send_eof(self) -> None:
        await self.until_done(self._secured.unwrap)
        await self._stream.send_eof()


def secure(
    stream: trio.abc.Stream,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    name: str | None = None,
) -> SecuredStream | trio.SSLStream[trio.abc.Stream]:
    """Return TLS over a stream, before its handshake; trio's own if it is not a socket's."""
    if isinstance(stream, trio.SocketStream | SecuredStream):
        raw = straight_over(stream)
        if isinstance(raw, Straight | SecuredTrioSocket):
            return SecuredStream(stream, raw, context, server_side=server_side, name=name)
    return trio.SSLStream(stream, context, server_side=server_side, server_hostname=name)


def straight_over(stream: trio.abc.Stream) -> Channel | None:
    """Return how to read and write without a stream's own calls; None if that can't be."""
    if isinstance(stream, ChannelStream):
        return stream.channel
    if type(stream) is trio.SocketStream and hasattr(os, "readv"):
        return Straight(stream.socket)
    return None
