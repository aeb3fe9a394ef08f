"""Sockets without trio's streams between, and TLS over them, many records at a time.

`trio.SSLStream` reads a record of 16 KiB at a time, and takes several turns of the loop for each.
Here one system call brings several records and one takes several away.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import trio

from ..secured import NOTHING, Secured

T = TypeVar("T")

# Bytes that one system call may bring.
READ_SIZE = 64 * 1024


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


class SecuredSocket:
    """TLS over a socket. Its methods are those of an `SSLSocket` that doesn't block.

    Attributes:
        sock: the socket that carries it.
        object: what knows the certificates and the like.
    """

    def __init__(
        self, raw: Straight, context: ssl.SSLContext, *, server_side: bool, name: str | None = None
    ) -> None:
        self.sock: trio.socket.SocketType = raw.sock
        self._raw = raw
        self._secured = Secured(context, server_side=server_side, name=name)
        self.object: ssl.SSLObject = self._secured.object
        self._unsent = NOTHING  # encrypted
        self._ended = False  # by `unwrap`
        self._taken = 0  # of what `send` was given, encrypted, until all of it is sent

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            SSLWantReadError: the socket has to bring more.
            SSLWantWriteError: the socket has to take more.
        """
        while True:
            try:
                done = self._secured.do_handshake()
            except ssl.SSLError:
                with suppress(OSError):  # the alert goes out at once or not at all
                    self._flush()
                raise
            self._flush()
            if done:
                return
            try:
                self._receive()
            except BlockingIOError:
                raise ssl.SSLWantReadError from None

    def recv(self, size: int) -> bytes:
        """Return some bytes, decrypted, b"" at the end; it raises as `recv_into` does."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def recv_into(self, buffer: memoryview) -> int:
        """Decrypt what has come into a buffer, as much as it holds; return 0 at the end.

        After `unwrap` what comes is given undecrypted: only its end is of interest.

        Raises:
            BlockingIOError: nothing has come.
        """
        if self._ended:
            data = self._raw.recv(min(len(buffer), READ_SIZE))
            buffer[: len(data)] = data
            return len(data)
        while True:
            count = self._secured.read_into(buffer)
            if count or self._secured.ended:
                return count
            self._receive()

    def send(self, data: memoryview) -> int:
        """Encrypt all of some data, and send it; return its size.

        Raises:
            SSLWantWriteError: the socket took a part. The same data must be given again.
        """
        if not self._taken:
            self._queue(self._secured.encrypt(data))
            self._taken = len(data)
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def unwrap(self) -> None:
        """Send a close_notify.

        Raises:
            SSLWantWriteError: the socket has to take more; call again.
        """
        if not self._ended:
            self._ended = True
            self._secured.unwrap()
        self._flush()

    def _receive(self) -> None:
        self._secured.feed(self._raw.recv(READ_SIZE))

    def _queue(self, data: bytes) -> None:
        """Take over what was encrypted, to be sent."""
        if data:
            self._unsent = memoryview(b"".join([self._unsent, data]) if self._unsent else data)

    def _flush(self) -> None:
        self._queue(self._secured.output())
        try:
            while self._unsent:
                self._unsent = self._unsent[self._raw.send(self._unsent) :]
        except BlockingIOError:
            raise ssl.SSLWantWriteError from None


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
    """TLS over a socket's stream.

    It has the methods that tell of a connection, as `trio.SSLStream` has them.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        name: str | None,
    ) -> None:
        self._secured = SecuredSocket(
            Straight(stream.socket), context, server_side=server_side, name=name
        )
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
    if isinstance(stream, trio.SocketStream) and straight_over(stream):
        return SecuredStream(stream, context, server_side=server_side, name=name)
    return trio.SSLStream(stream, context, server_side=server_side, server_hostname=name)


def straight_over(stream: trio.abc.Stream) -> Channel | None:
    """Return how to read and write without a stream's own calls; None if that can't be."""
    if isinstance(stream, ChannelStream):
        return stream.channel
    if type(stream) is trio.SocketStream and hasattr(os, "readv"):
        return Straight(stream.socket)
    return None
