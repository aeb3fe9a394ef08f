"""Sessions over WebSockets, by the library `websockets`.

How it works. `Link` is an asyncio protocol, and carries a session in the place of the link that
sessions over TCP have. It hands what arrives to the library's sans-I/O protocol, and the payloads
of the frames which that gives to the session; what the session sends, it hands to the library as
messages. It has no task, and nothing waits in it: what can't be written stays in the session.

A WebSocket has no half-close: what a peer sends after it was sent a close frame is discarded.
Sessions over it end as those over TLS do, a ping's answer telling that all has arrived.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .. import forks
from ..admission import Admission
from ..asyncio import Server, Session
from ..asyncio.awaitable import AwaitableContext
from ..asyncio.connecting import NEVER
from ..asyncio.driver import Driver, ask
from ..asyncio.links import BUFFER_HIGH, BUFFER_LOW, descriptor_of
from ..asyncio.listening import starter
from ..asyncio.reaching import hang_up, reach
from ..asyncio.session import new_session
from ..config import Config
from ..endpoint import Target, check_handler, dial_target, explain, tune
from ..errors import ProtocolError, UsageError
from ..extras import needs
from ..registry import check_name
from ._rules import (
    INTERNAL_ERROR,
    NORMAL,
    ORDERLY_CODES,
    RECEIVED_SIZE,
    SUBPROTOCOL,
    TEXT_RECEIVED,
    UNSUPPORTED,
    check_origins,
    pieces,
)
from .errors import HandshakeRefused, WebSocketLost, wanted_pause

with needs("websockets"):
    from websockets.client import ClientProtocol
    from websockets.exceptions import InvalidStatus, NegotiationError
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request, Response
    from websockets.protocol import Protocol, State
    from websockets.server import ServerProtocol
    from websockets.typing import Origin, Subprotocol
    from websockets.uri import WebSocketURI, parse_uri

__all__ = ["connect", "serve"]

# Pings that are answered while the peer reads nothing: more of them would pile up as answers.
MOST_PINGS = 64

# The library's own log has the request's path and headers, which may hold secrets.
silent: logging.Logger = logging.Logger("muxado.carriers.websockets")
silent.disabled = True


class Link(asyncio.Protocol):
    """Carries a session over a WebSocket.

    Attributes:
        writable: see `muxado.asyncio.driver.Link`.
        opened: done once the handshake is.
    """

    def __init__(self, driver: Driver, protocol: Protocol, request: Request | None) -> None:
        self.writable: bool = False
        self.opened: asyncio.Future[None] = driver.loop.create_future()
        self._driver = driver
        self._protocol = protocol
        self._request = request  # a client's, still to be sent
        self._transport: asyncio.Transport | None = None
        self._info: dict[str, object] = {}
        self._paused = False
        self._pings = 0  # since it is paused
        self._timer: asyncio.TimerHandle | None = None
        driver.link = self

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        for name in ("peername", "sockname"):  # which asyncio's TLS forgets at its end
            self._info[name] = ask(transport, name)
        self._transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)  # type: ignore[union-attr]
        self._driver.core.confirm_output()
        tune(transport.get_extra_info("socket"))
        if self._request is not None:
            assert isinstance(self._protocol, ClientProtocol)
            self._protocol.send_request(self._request)
            self._write_out()

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        received = []
        closed = False
        for event in protocol.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
                    received.append(event.data)
                elif event.opcode is Opcode.TEXT:
                    self._deliver(received)
                    self._fail(UNSUPPORTED, TEXT_RECEIVED)
                    return
                elif event.opcode is Opcode.CLOSE:
                    closed = True
                elif event.opcode is Opcode.PING and self._paused:
                    self._pings += 1
            else:
                self._handshake(event)
        self._deliver(received)
        if protocol.handshake_exc is not None and not self.opened.done():
            self._refused(protocol.handshake_exc)
        self._write_out()
        if self._pings > MOST_PINGS:
            self._fail(UNSUPPORTED, "the peer sent WebSocket pings and did not read the answers")
        elif closed:
            self._peer_closed()
        elif protocol.parser_exc is not None:
            self._lose(ProtocolError(f"the peer broke WebSocket's rules: {protocol.parser_exc}"))

    def eof_received(self) -> bool:
        if not self.opened.done():
            self._refused(EOFError("the connection was closed in the handshake"))
        elif self._protocol.close_rcvd is None:
            # Without a close frame before it, this is a connection that was cut.
            self._driver.received_eof()
        return False  # the transport closes

    def pause_writing(self) -> None:
        self.writable = False
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pings = 0
        if self._is_open():
            self.writable = True
            # Not at once: asyncio is inside its own write.
            self._driver.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = False
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self._refused(exc or EOFError("the connection was closed in the handshake"))
        self._transport = None
        self._driver.connection_lost(exc)

    # Inside

    def _is_open(self) -> bool:
        return self._protocol.state is State.OPEN and self._transport is not None

    def _deliver(self, received: list[Any]) -> None:
        if received:
            self._driver.received_data(received[0] if len(received) == 1 else b"".join(received))

    def _handshake(self, event: Request | Response) -> None:
        """Answer a client's request, or take note of a server's response."""
        if isinstance(event, Request):
            assert isinstance(self._protocol, ServerProtocol)
            self._protocol.send_response(self._protocol.accept(event))
            self._info["path"] = event.path
        elif self._protocol.handshake_exc is None:
            self._info["status"] = event.status_code
        self._info["headers"] = event.headers
        self._info["subprotocol"] = self._protocol.subprotocol
        if self._protocol.handshake_exc is None:
            self._write_out()
            self.writable = not self._paused
            self._driver.connected()
            if not self.opened.done():
                self.opened.set_result(None)

    def _refused(self, exc: BaseException) -> None:
        if not self.opened.done():
            self.opened.set_exception(refusal(exc))
            self.opened.exception()  # a dial that was cancelled looks at it no more

    def _write_out(self) -> None:
        """Write what the library has to send."""
        transport = self._transport
        data = self._protocol.data_to_send()
        if transport is None or not data:
            return
        ends = not data[-1]  # the library's sign that the output ends
        found = data[0] if len(data) == 1 else b"".join(data)
        if found:
            transport.write(found)
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
            timeout = self._driver.core.config.close_timeout
            self._timer = self._driver.loop.call_later(timeout, self._transport.abort)

    def _peer_closed(self) -> None:
        close = self._protocol.close_rcvd
        assert close is not None
        self.writable = False
        if int(close.code) in ORDERLY_CODES:
            self._driver.received_eof()
            self._hang_up()
        else:
            self._lose(WebSocketLost(int(close.code), close.reason))

    def _lose(self, exc: Exception) -> None:
        """End the session with an error, and the connection with it."""
        self._hang_up()
        self._driver.connection_lost(exc)

    def _fail(self, code: int, message: str) -> None:
        """End the session because the peer has broken the rules, and tell it so."""
        if self._is_open():
            self._protocol.fail(code, message)
            self._write_out()
        self._lose(ProtocolError(message))

    # For the driver

    def write(self, data: bytes) -> None:
        for piece in pieces(data):
            self._protocol.send_binary(piece)
        self._write_out()

    def half_close(self) -> None:
        self.close()

    def close(self) -> None:
        self.writable = False
        if self._is_open():
            self._protocol.send_close(NORMAL)
            self._write_out()
            self._limit()
        else:
            self._hang_up()

    def abort(self) -> None:
        self.writable = False
        if self._is_open():
            self._protocol.send_close(INTERNAL_ERROR)
            self._write_out()
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, name: str, default: object = None) -> object:
        if self._info.get(name) is not None:
            return self._info[name]
        if self._transport is None:
            return default
        info: object = self._transport.get_extra_info(name, default)
        return info

    def descriptors(self) -> list[int]:
        return [descriptor_of(self._transport)]


def refusal(exc: BaseException) -> HandshakeRefused:
    """Return the error for a handshake that failed."""
    if isinstance(exc, InvalidStatus):
        response = exc.response
        status = response.status_code
        after = wanted_pause(response.headers.get("Retry-After"), None)
        error = HandshakeRefused(f"the server answered with HTTP status {status}", status, after)
    else:
        error = HandshakeRefused(f"the WebSocket's handshake failed: {exc}")
    error.__cause__ = exc
    return error


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
    uri = check_url(url)
    check_name(name)
    if uri.secure:
        if ssl is False:
            raise UsageError("ssl=False with a wss:// URL: use ws:// for a connection without TLS")
        ssl = web_context() if ssl is None or ssl is True else ssl
    elif ssl:
        raise UsageError("ssl= is for wss:// URLs")
    target = dial_target(
        uri.host, uri.port, None, None, ssl, server_hostname, timeout, config, proxy
    )
    new_protocol = partial(client_protocol, uri, check_headers(headers))
    new_protocol()  # a bad URL or header shows here
    return AwaitableContext("connect", partial(_connect, target, config, name, new_protocol))


def check_url(url: object) -> WebSocketURI:
    """Return a URL in its parts.

    Raises:
        UsageError: it is no WebSocket's URL. The error does not repeat it: it may hold secrets.
    """
    if not isinstance(url, str):
        raise UsageError("the URL must be a string that begins with ws:// or wss://")
    if urlsplit(url).scheme not in ("ws", "wss"):
        raise UsageError("the URL must begin with ws:// or wss://")
    try:
        return parse_uri(url)
    except Exception:
        raise UsageError("the URL is not one of a WebSocket, such as wss://host/path") from None


def check_headers(headers: object) -> dict[str, str]:
    """Return a handshake's further headers.

    Raises:
        UsageError: they are no mapping of strings, or would end their line.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise UsageError("headers= must be a mapping of strings")
    found = dict(headers)
    for header, value in found.items():
        if not isinstance(header, str) or not isinstance(value, str):
            raise UsageError("headers= must be a mapping of strings")
        if not header or any(mark in header + value for mark in "\r\n\0"):
            raise UsageError(f"the header {header!r} can't be sent")
    return found


def web_context() -> ssl_module.SSLContext:
    """Return a context that verifies, and offers HTTP/1.1."""
    context = ssl_module.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_protocol(uri: WebSocketURI, headers: dict[str, str]) -> tuple[ClientProtocol, Request]:
    """Return the library's part of a client, and its request."""
    protocol = ClientProtocol(
        uri, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=RECEIVED_SIZE, logger=silent
    )
    request = protocol.connect()
    for header, value in headers.items():
        if header in request.headers:
            del request.headers[header]
        request.headers[header] = value
    return protocol, request


async def _connect(
    target: Target,
    config: Config | None,
    name: str,
    new_protocol: Callable[[], tuple[ClientProtocol, Request]],
) -> Session:
    try:
        async with asyncio.timeout(target.timeout) as limit:
            return await _dial(target, config, name, *new_protocol())
    except TimeoutError:
        if limit.expired():
            raise target.timed_out() from None
        raise


async def _dial(
    target: Target, config: Config | None, name: str, protocol: ClientProtocol, request: Request
) -> Session:
    sock = await reach(target)
    forks.guard(sock)
    session, driver = new_session(client=True, config=config, name=name)
    link = Link(driver, protocol, request)
    options: dict[str, Any] = {"sock": sock}
    if target.context is not None:
        options |= {"ssl": target.context, "server_hostname": target.name}
        options |= {"ssl_handshake_timeout": NEVER}
    reached = False
    try:
        await driver.loop.create_connection(lambda: link, **options)
        reached = True
        await link.opened
    except BaseException as exc:
        # The transport has the socket. Given up in its handshake, asyncio's TLS would leave it.
        hang_up(sock)
        driver.give_up()
        if target.context is not None and not reached:
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
    allowed: list[Any] = [None, *map(Origin, check_origins(origins))]
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
        partial(_server_link, allowed),
    )
    return AwaitableContext("serve", start)


def _server_link(origins: list[Any], driver: Driver) -> Link:
    protocol = ServerProtocol(
        origins=origins,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        select_subprotocol=_select,
        max_size=RECEIVED_SIZE,
        logger=silent,
    )
    return Link(driver, protocol, None)


def _select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose ours; a client that offers none is taken, one that offers others alone is refused."""
    if offered and SUBPROTOCOL not in offered:
        raise NegotiationError(f"the subprotocol must be {SUBPROTOCOL!r}")
    return Subprotocol(SUBPROTOCOL) if offered else None
