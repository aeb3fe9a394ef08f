"""httpcore, and with it httpx, over a session: network backends that open streams.

Whatever host and port are asked for, a stream of the session is what is had; `https` is TLS
inside it, with the certificate checked against the URL's host.

Connections of a pool that are idle end when the session drains, and others with their response,
if they speak HTTP/1.1; with HTTP/2 it is the server that can tell.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import asyncio as on_asyncio
from .. import sync
from ..base_stream import give_up
from ..errors import MuxadoError
from ..extras import needs
from ._idle import close_idle_when_draining

with needs("httpcore"):
    import anyio
    import anyio.abc
    import anyio.lowlevel
    import httpcore
    from anyio.streams.tls import TLSAttribute, TLSStream

    from .anyio import ByteStream

if TYPE_CHECKING:
    from .. import trio as on_trio

__all__ = ["AsyncBackend", "Backend"]

SocketOptions = Iterable[Any] | None


class AsyncBackend(httpcore.AsyncNetworkBackend):
    """Opens streams for `httpcore.AsyncConnectionPool(network_backend=...)`.

    Args:
        session: a `muxado.Session`, or a `muxado.trio.Session` under trio.
    """

    def __init__(self, session: on_asyncio.Session | on_trio.Session) -> None:
        self._session = session

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a stream."""
        with _mapped(MuxadoError, to=httpcore.ConnectError, timeout=httpcore.ConnectTimeout):
            return _AsyncStream(ByteStream(await self._open(host, timeout)))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a stream."""
        return await self.connect_tcp(path, 0, timeout)

    async def sleep(self, seconds: float) -> None:
        """Wait before httpcore tries again."""
        await anyio.sleep(seconds)

    async def _open(self, host: str, timeout: float | None) -> on_asyncio.Stream | on_trio.Stream:
        """Open a stream for what a host is asked."""
        return self._session.open()


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: ByteStream, tls: TLSStream | None = None) -> None:
        self._stream = stream
        self._tls = tls
        self._io: anyio.abc.ByteStream = tls or stream
        self._idle = False
        close_idle_when_draining(stream.stream.session, self)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _mapped(*BROKEN, to=httpcore.ReadError, timeout=httpcore.ReadTimeout):
            with anyio.fail_after(timeout):
                try:
                    return await self._io.receive(max_bytes)
                except anyio.EndOfStream:
                    return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._idle = False
        with _mapped(*BROKEN, to=httpcore.WriteError, timeout=httpcore.WriteTimeout):
            with anyio.fail_after(timeout):
                if buffer:
                    await self._io.send(buffer)

    async def aclose(self) -> None:
        self._close()
        await anyio.lowlevel.checkpoint()

    def close_idle(self) -> None:
        """Close the stream if no request is running."""
        if self._idle:
            self._close()

    def _close(self) -> None:
        # httpcore closes where nothing can cancel it, so that may not wait for a peer that
        # reads nothing: what needs the peer's credit is given up.
        stream = self._stream.stream
        if stream.stalled():
            give_up(stream)
        else:
            stream.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _mapped(
            *BROKEN,
            anyio.EndOfStream,
            ssl.SSLError,
            to=httpcore.ConnectError,
            timeout=httpcore.ConnectTimeout,
        ):
            try:
                with anyio.fail_after(timeout):
                    # HTTP says itself where a message ends: no close_notify is waited for.
                    tls = await TLSStream.wrap(
                        self._io,
                        hostname=server_hostname,
                        ssl_context=ssl_context,
                        server_side=False,
                        standard_compatible=False,
                    )
            except BaseException:
                give_up(self._stream.stream)
                raise
        return _AsyncStream(self._stream, tls)

    def get_extra_info(self, info: str) -> Any:
        if info in ATTRIBUTES:
            attributes: Mapping[Any, Any] = self._io.extra_attributes
            ask = attributes.get(ATTRIBUTES[info])
            return ask() if ask is not None else None
        if info == "is_readable":  # asked of idle ones: one that is readable has ended
            stream = self._stream.stream
            self._idle = True
            return stream.readable() or stream.session.draining
        return None


class Backend(httpcore.NetworkBackend):
    """Opens streams for `httpcore.ConnectionPool(network_backend=...)`.

    TLS inside a stream goes through `Stream.to_socket()`, at the cost of two threads each.

    Args:
        session: a `muxado.sync.Session`.
    """

    def __init__(self, session: sync.Session) -> None:
        self._session = session

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.NetworkStream:
        """Open a stream."""
        with _mapped(MuxadoError, to=httpcore.ConnectError):
            return _Stream(self._session.open())

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: SocketOptions = None,
    ) -> httpcore.NetworkStream:
        """Open a stream."""
        return self.connect_tcp(path, 0, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: sync.Stream, tls: ssl.SSLSocket | None = None) -> None:
        self._stream = stream
        self._tls = tls
        self._io: sync.Stream | socket.socket = tls or stream
        self._idle = False
        self._beginning = threading.RLock()  # held while that is changed, and acted upon
        close_idle_when_draining(stream.session, self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._set_busy()
        with _mapped(OSError, to=httpcore.ReadError, timeout=httpcore.ReadTimeout):
            self._io.settimeout(timeout)
            return self._io.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._set_busy()
        with _mapped(OSError, to=httpcore.WriteError, timeout=httpcore.WriteTimeout):
            self._io.settimeout(timeout)
            self._io.sendall(buffer)

    def _set_busy(self) -> None:
        if self._idle:
            with self._beginning:
                self._idle = False

    def close(self) -> None:
        self._io.close()

    def close_idle(self) -> None:
        """Close the stream if no request is running. It never waits."""
        if self._beginning.acquire(blocking=False):
            try:
                if self._idle:
                    self._io.close()
            finally:
                self._beginning.release()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        if self._tls is not None:
            raise NotImplementedError("TLS inside TLS inside a stream")
        with _mapped(OSError, to=httpcore.ConnectError, timeout=httpcore.ConnectTimeout):
            sock = self._stream.to_socket()
            sock.settimeout(timeout)
            try:
                tls = ssl_context.wrap_socket(sock, server_hostname=server_hostname)
            except BaseException:
                sock.close()
                raise
        return _Stream(self._stream, tls)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        if info == "client_addr":
            return self._stream.getsockname()
        if info == "server_addr":
            return self._stream.getpeername()
        if info == "is_readable":  # asked of idle ones: one that is readable has ended
            self._idle = True
            if self._stream.session.draining:
                return True
            if self._tls is None:
                return self._stream.readable()
            return self._stream.is_closing() or _has_input(self._tls)
        return None


ATTRIBUTES: dict[str, object] = {
    "ssl_object": TLSAttribute.ssl_object,
    "client_addr": anyio.abc.SocketAttribute.local_address,
    "server_addr": anyio.abc.SocketAttribute.remote_address,
}
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


@contextlib.contextmanager
def _mapped(
    *errors: type[Exception],
    to: type[Exception],
    timeout: type[Exception] | None = None,
) -> Iterator[None]:
    """Turn errors into httpcore's."""
    try:
        yield
    except TimeoutError as exc:
        raise (timeout or to)(str(exc)) from exc
    except errors as exc:
        raise to(str(exc)) from exc


def _has_input(sock: socket.socket) -> bool:
    """Return whether something can be read at once."""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(0))
    except (OSError, ValueError):  # it is closed
        return True
