"""Connections through a proxy that is reached by TLS.

How it works. What the proxy says comes out of TLS, so there is a transport before the proxy has
connected to the target. `Asking` is its protocol until then, and the session's link from then on.
If the target wants TLS too, that goes through the transport of the other.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from ..endpoint import Target, explain
from ..proxies import ProxyHandshake, ProxyRefused

__all__ = ["dial_through"]

NEVER = 1e9  # seconds: the time limit of the whole is the handshakes' too


class Asking(asyncio.Protocol):
    """Has a proxy connect to a target, and keeps what comes until the session's link takes over.

    Attributes:
        connected: done once the proxy has connected.
        received: what has come after the proxy's answer.
    """

    def __init__(self, target: Target) -> None:
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received: bytearray = bytearray()
        self._target = target
        self._handshake: ProxyHandshake | None = None  # until TLS with the proxy is there
        self._transport: asyncio.Transport | None = None
        self._step: bytes | int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._transport is None:  # else it is the target's TLS
            self._transport = transport  # type: ignore[assignment]
            target = self._target
            assert target.proxy is not None
            self._handshake = ProxyHandshake(target.proxy, target.host, target.port)
            self._go_on(None)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while isinstance(self._step, int) and self.received:
            taken = bytes(self.received[: self._step])
            del self.received[: len(taken)]
            self._go_on(taken)

    def eof_received(self) -> None:
        if isinstance(self._step, int):
            self._go_on(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the connection to the proxy was lost"))

    def _go_on(self, received: bytes | None) -> None:
        """Take steps until there is something to receive."""
        assert self._transport is not None
        assert self._handshake is not None
        try:
            self._step = self._handshake.step(received)
            while isinstance(self._step, bytes):
                self._transport.write(self._step)
                self._step = self._handshake.step()
        except ProxyRefused as exc:
            self._step = None
            self._fail(exc)
            return
        if self._step is None and not self.connected.done():
            self._transport.pause_reading()
            self.connected.set_result(None)

    def _fail(self, exc: Exception) -> None:
        if not self.connected.done():
            self.connected.set_exception(exc)
            self.connected.exception()  # a dial that was cancelled looks at it no more


async def dial_through(
    link: Any, sock: socket.socket, target: Target, tls_options: dict[str, Any]
) -> None:
    """Give a link the transport of a connection to a target, through a proxy that wants TLS.

    Args:
        link: the session's, a protocol of asyncio's with the method `take_early`.
        sock: a socket that is connected to the proxy.
        target: the target.
        tls_options: of the TLS with the target.

    Raises:
        ProxyRefused: the proxy has not made the connection.
        OSError: one of the TLS handshakes has failed, or the connection is lost.
    """
    loop = asyncio.get_running_loop()
    proxy = target.proxy
    assert proxy is not None
    assert proxy.context is not None
    asking = Asking(target)
    options: dict[str, Any] = {"server_hostname": proxy.host, "ssl_handshake_timeout": NEVER}
    transport: Any
    try:
        transport, _ = await loop.create_connection(
            lambda: asking, sock=sock, ssl=proxy.context, **options
        )
    except OSError as exc:
        proxy.explain(exc)
        raise
    try:
        await asking.connected
        if target.context is not None:
            if asking.received:  # it would pass for something that the target has said by TLS
                raise ProxyRefused(f"{proxy} sent bytes before the target's TLS")
            transport = await _secure(transport, asking, target, tls_options)
        if transport.is_closing():
            raise ConnectionResetError(f"the connection through {proxy} was lost")
    except BaseException:
        transport.abort()
        raise
    transport.set_protocol(link)
    link.connection_made(transport)
    if asking.received:
        link.take_early(bytes(asking.received))
    transport.resume_reading()


async def _secure(
    transport: asyncio.Transport, asking: Asking, target: Target, tls_options: dict[str, Any]
) -> asyncio.Transport:
    """Do the TLS handshake with the target."""
    assert target.context is not None
    options: dict[str, Any] = {"server_hostname": target.name, "ssl_handshake_timeout": NEVER}
    options |= tls_options
    loop = asyncio.get_running_loop()
    try:
        secured = await loop.start_tls(transport, asking, target.context, **options)
    except BaseException as exc:
        explain(exc, target.alpn)
        raise
    if secured is None:  # the connection was lost meanwhile
        raise ConnectionResetError(f"the connection to {target} was lost in the TLS handshake")
    return secured
