"""Sessions over WebSockets for asyncio.

How it works. `Link` is an asyncio protocol, and carries a session in the place of the link that
sessions over TCP have. What arrives goes to a `Conversation`, and what that gives to the session;
what the session sends goes the other way. It has no task, and nothing waits in it: what can't be
written stays in the session.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from ... import forks
from ...admission import Admission
from ...asyncio import Server, Session
from ...asyncio.awaitable import AwaitableContext
from ...asyncio.driver import Driver, ask
from ...asyncio.links import BUFFER_HIGH, BUFFER_LOW, descriptor_of
from ...asyncio.listening import starter
from ...asyncio.proxied import NEVER, dial_through
from ...asyncio.reaching import hang_up, reach
from ...asyncio.session import new_session
from ...config import Config
from ...endpoint import check_handler, explain, tune
from ._conversation import Conversation
from ._handshake import Dial, check_dial, check_listening

__all__ = ["connect", "serve"]


class Link(asyncio.Protocol):
    """Carries a session over a WebSocket.

    Attributes:
        writable: see `muxado.asyncio.driver.Link`.
        opened: done once the handshake is.
    """

    def __init__(self, driver: Driver, conversation: Conversation) -> None:
        self.writable: bool = False
        self.opened: asyncio.Future[None] = driver.loop.create_future()
        self._driver = driver
        self._conversation = conversation
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        driver.link = self

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        for name in ("peername", "sockname"):  # which asyncio's TLS forgets at its end
            self._conversation.info[name] = ask(transport, name)
        self._transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)  # type: ignore[union-attr]
        self._driver.core.confirm_output()
        tune(transport.get_extra_info("socket"))
        self._write_out()

    def data_received(self, data: bytes) -> None:
        conversation = self._conversation
        received = conversation.receive(data, self._paused)
        self._write_out()
        if not self.opened.done():
            self._look_whether_opened()
        if received:
            self._driver.received_data(received)
        if conversation.failure is not None:
            self._lose(conversation.failure)
        elif conversation.ended:
            self.writable = False
            self._driver.received_eof()
            self._hang_up()

    def take_early(self, data: bytes) -> None:
        """Take in bytes that were read before the link had the transport."""
        self.data_received(data)

    def eof_received(self) -> bool:
        conversation = self._conversation
        cut = not conversation.ended
        conversation.receive_eof()
        if not self.opened.done():
            self._look_whether_opened()
        elif cut:
            # Without a close frame before it, this is a connection that was cut.
            self._driver.received_eof()
        return False  # the transport closes

    def pause_writing(self) -> None:
        self.writable = False
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._is_open():
            self.writable = True
            # In the next turn, since asyncio is inside its own write now.
            self._driver.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = False
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self._conversation.receive_eof(exc)
            self._look_whether_opened()
        self._transport = None
        self._driver.connection_lost(exc)

    # Inside

    def _is_open(self) -> bool:
        return self._conversation.is_open and self._transport is not None

    def _look_whether_opened(self) -> None:
        conversation = self._conversation
        if conversation.opened:
            self.writable = not self._paused
            self._driver.core.agree(conversation.agreed)
            self._driver.connected()
            self.opened.set_result(None)
        elif conversation.refusal is not None:
            self.opened.set_exception(conversation.refusal)
            self.opened.exception()  # a dial that was cancelled looks at it no more

    def _write_out(self) -> None:
        """Write what the conversation has to send."""
        transport = self._transport
        if transport is None:
            return
        data, ends = self._conversation.data_to_send()
        if data:
            transport.write(data)
        if ends:
            self._hang_up()
        elif transport.is_closing():  # the write has found the connection lost
            self.writable = False

    def _hang_up(self) -> None:
        """Close the connection once what was written is sent, and in bounded time."""
        self.writable = False
        transport = self._transport
        if transport is None:
            return
        if not transport.is_closing():
            transport.close()
        self._limit()

    def _limit(self) -> None:
        """Abort the connection if it is still there after a while."""
        if self._timer is None and self._transport is not None:
            timeout = self._driver.core.ledger.config.close_timeout
            self._timer = self._driver.loop.call_later(timeout, self._transport.abort)

    def _lose(self, exc: Exception) -> None:
        """End the session with an error, and the connection with it."""
        self._hang_up()
        self._driver.connection_lost(exc)

    # For the driver

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        self._conversation.send(data)
        self._write_out()

    def half_close(self) -> None:
        self.close()

    def close(self) -> None:
        self.writable = False
        if self._is_open():
            self._conversation.close()
            self._write_out()
            self._limit()
        else:
            self._hang_up()

    def abort(self) -> None:
        self.writable = False
        self._conversation.abort()
        self._write_out()
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, name: str, default: object = None) -> object:
        known = self._conversation.info.get(name)
        if known is not None:
            return known
        if self._transport is None:
            return default
        info: object = self._transport.get_extra_info(name, default)
        return info

    def descriptors(self) -> list[int]:
        return [descriptor_of(self._transport)]


def connect(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    config: Config | None = None,
    timeout: float | None = 30.0,
    name: str = "",
    proxy: str | None = None,
) -> AwaitableContext[Session]:
    """Dial a session over a WebSocket, as its client. Await it, or use it with `async with`.

    For a `Dialer`: ``Dialer(dial=lambda: connect(url))``.

    Args:
        url: a ``ws://`` or ``wss://`` URL. What it says after its host is never logged.
        headers: further headers of the handshake, such as ``Authorization``.
        ssl: for ``wss``, a context; by default one with the system's trusted authorities.
        server_hostname: the name the server's certificate must have; the URL's by default.
        config: the session's settings.
        timeout: seconds for all of it: connecting, TLS, and the WebSocket's handshake. None: no
            limit.
        name: what to call the session; see `Session.name`.
        proxy: reach the host through this proxy, as for `muxado.connect`.

    Returns:
        an awaitable that gives the `Session`. Its `get_extra_info` has the ``headers`` of the
        server's response, and the ``subprotocol``, besides what it has for TCP and TLS.
        Cancelled, it closes what it has opened.

    Raises:
        UsageError: an argument can't be.
        ProxyRefused: the proxy has not made the connection; an `OSError` too.
        HandshakeRefused: the server has refused the WebSocket.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError` if it
            takes too long).
    """
    dial = check_dial(url, headers, ssl, server_hostname, config, timeout, name, proxy)
    return AwaitableContext("connect", partial(_connect, dial, config, name))


async def _connect(dial: Dial, config: Config | None, name: str) -> Session:
    try:
        async with asyncio.timeout(dial.target.timeout) as limit:
            return await _dial(dial, config, name)
    except TimeoutError:
        if limit.expired():
            raise dial.target.timed_out() from None
        raise


async def _dial(dial: Dial, config: Config | None, name: str) -> Session:
    target = dial.target
    sock = await reach(target)
    forks.guard(sock)
    session, driver = new_session(client=True, config=config, name=name)
    link = Link(driver, dial.new_conversation())
    options: dict[str, Any] = {"sock": sock}
    if target.context is not None:
        options |= {"ssl": target.context, "server_hostname": target.name}
        options |= {"ssl_handshake_timeout": NEVER}
    secured_proxy = target.proxy is not None and target.proxy.context is not None
    reached = False
    try:
        if secured_proxy:
            await dial_through(link, sock, target, {})
        else:
            await driver.loop.create_connection(lambda: link, **options)
        reached = True
        await link.opened
    except BaseException as exc:
        # The transport has the socket. Given up in its handshake, asyncio's TLS would leave it.
        hang_up(sock)
        driver.give_up()
        if target.context is not None and not reached and not secured_proxy:
            explain(exc, target.alpn)
        raise
    return session


def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | None = None,
    port: int | None = None,
    *,
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[str] = (),
    config: Config | None = None,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    **kwds: Any,
) -> AwaitableContext[Server]:
    """Listen for WebSockets, and run `handler(session)` for the session over each.

    Await it, or use it with `async with`. Any path is taken; ``session.get_extra_info("path")``
    has it, with its query, and ``"headers"`` the request's headers. A failing handshake is logged
    and affects no other client.

    Args:
        handler: a coroutine function.
        host: the address to listen on; all of them if only `port` is given.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        ssl: for TLS, a context with a certificate.
        origins: the ``Origin`` headers that are taken, such as ``"https://app.example"``.
            Browsers send one with each WebSocket, so that by default no web page can connect;
            programs send none.
        config: the sessions' settings.
        max_sessions: as for `muxado.serve`.
        max_receive_memory: as for `muxado.serve`.
        proxy_protocol: as for `muxado.serve`.
        reuse_port: as for `muxado.serve`.
        kwds: as for `muxado.serve`, also ``path`` and ``sock``.

    Returns:
        an awaitable that gives the `Server`.

    Raises:
        UsageError: an argument can't be.
        OSError: the address can't be listened on.
    """
    check_handler(handler)
    new_conversation = check_listening(origins, config)
    admission = Admission(max_sessions, max_receive_memory)
    start: Callable[[], Coroutine[Any, Any, Server]] = starter(
        Server(handler),
        host,
        port,
        kwds.pop("path", None),
        kwds.pop("sock", None),
        ssl,
        config,
        proxy_protocol,
        reuse_port,
        admission,
        kwds,
        lambda driver: Link(driver, new_conversation()),
    )
    return AwaitableContext("serve", start)
