"""Sessions over WebSockets for trio."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from ...admission import Admission
from ...config import Config
from ...endpoint import BACKLOG, check_handler, listen_place
from ...errors import UsageError
from ...trio import Server, Session
from ...trio.block import SessionBlock
from ...trio.connecting import dial, in_time
from ...trio.driver import close_forcefully
from ...trio.listening import run_server
from ...trio.secured import ChannelStream, SecuredTrioSocket, Straight, straight_over
from ._channel import Channel
from ._conversation import Conversation
from ._handshake import check_dial, check_listening

__all__ = ["connect", "serve"]


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
) -> AbstractAsyncContextManager[Session]:
    """Dial a session over a WebSocket, as its client: ``async with connect(url) as session``.

    For a `muxado.trio.Dialer`: ``Dialer(dial=lambda: connect(url))``.

    Args:
        url: a ``ws://`` or ``wss://`` URL. What it says after its host is never logged.
        headers: further headers of the handshake, such as ``Authorization``.
        ssl: for ``wss``, a context; by default one with the system's trusted authorities.
        server_hostname: the name the server's certificate must have; the URL's by default.
        config: the session's settings.
        timeout: seconds for all of it: connecting, TLS, and the WebSocket's handshake. None: no
            limit.
        name: what to call the session; see `Session.name`.
        proxy: reach the host through this proxy, as for `muxado.trio.connect`.

    Returns:
        what gives the session. Its `get_extra_info` has the ``headers`` of the server's response,
        and the ``subprotocol``, besides what it has for TCP and TLS.

    Raises:
        UsageError: an argument can't be, or the system lacks `os.readv`, as Windows does.
        ProxyRefused: the proxy has not made the connection; an `OSError` too. This and the
            following are raised when the block is entered.
        HandshakeRefused: the server has refused the WebSocket.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError` if it
            takes too long).
    """
    _check_system()
    target, new_conversation = check_dial(
        url, headers, ssl, server_hostname, config, timeout, name, proxy
    )

    async def reach() -> trio.abc.Stream:
        stream = await dial(target)
        try:
            return await _upgrade(stream, new_conversation())
        except BaseException:
            await close_forcefully(stream)
            raise

    async def begin() -> trio.abc.Stream:
        return await in_time(target, reach)

    return SessionBlock(begin, None, client=True, config=config, name=name)


def _check_system() -> None:
    """Raise `UsageError` where sockets can't be read without trio's own calls."""
    if not hasattr(os, "readv"):
        raise UsageError("under trio, WebSockets need a system that has readv(): Windows has not")


class _TrioChannel(Channel):
    """A channel that says what to wait for."""

    def __init__(self, raw: Straight | SecuredTrioSocket, conversation: Conversation) -> None:
        super().__init__(raw, conversation)
        self.sock = raw.sock


class _WebSocketStream(ChannelStream):
    """A WebSocket over a stream."""

    half_closes = False

    def __init__(self, stream: trio.abc.Stream, channel: _TrioChannel) -> None:
        super().__init__(stream, channel)
        self.info: dict[str, object] = channel.info
        self._websocket = channel

    @property
    def agreed(self) -> str | None:
        return self._websocket.agreed

    async def shake_hands(self) -> None:
        await self.until_done(self._websocket.shake_hands)

    async def send_eof(self) -> None:
        await self.until_done(self._websocket.unwrap)

    async def aclose(self) -> None:
        self._websocket.abort()
        await super().aclose()


async def _upgrade(stream: trio.abc.Stream, conversation: Conversation) -> trio.abc.Stream:
    """Do the WebSocket's handshake."""
    raw = straight_over(stream)
    assert isinstance(raw, Straight | SecuredTrioSocket)
    websocket = _WebSocketStream(stream, _TrioChannel(raw, conversation))
    await websocket.shake_hands()
    return websocket


@trio.lowlevel.enable_ki_protection
async def serve(
    handler: Callable[[Session], Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[str] = (),
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen for WebSockets, and run `handler(session)` for the session over each, in a task.

    Use ``server = await nursery.start(serve, handler, host, port)`` to go on once it listens.
    Any path is taken; ``session.get_extra_info("path")`` has it, with its query, and
    ``"headers"`` the request's headers. A failing handshake is logged and affects no other client.
    Cancelled, it aborts every session.

    Args:
        handler: an async function.
        host: the address to listen on, or several, as for `muxado.trio.serve`.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound trio socket instead.
        ssl: for TLS, a context with a certificate.
        origins: the ``Origin`` headers that are taken, such as ``"https://app.example"``.
            Browsers send one with each WebSocket, so that by default no web page can connect;
            programs send none.
        config: the sessions' settings.
        backlog: as for `muxado.trio.serve`, and so are the following.
        max_sessions: see there.
        max_receive_memory: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        task_status: given the `Server` once it listens.

    Returns:
        when the server was closed, its sessions are gone and the handlers done.

    Raises:
        UsageError: an argument can't be, or the system lacks `os.readv`, as Windows does.
        OSError: the address can't be listened on.
    """
    _check_system()
    check_handler(handler)
    new_conversation = check_listening(origins, config)
    admission = Admission(max_sessions, max_receive_memory)
    kind = trio.socket.SocketType
    place = listen_place(
        host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port, kind=kind
    )

    async def upgrade(stream: trio.abc.Stream) -> trio.abc.Stream:
        return await _upgrade(stream, new_conversation())

    await run_server(handler, place, backlog, config, admission, task_status, upgrade)
