"""Sessions over WebSockets for threads."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from ...admission import Admission
from ...config import Config
from ...endpoint import BACKLOG, check_handler, listen_place
from ...secured_socket import SecuredSocket
from ...sync import Server, Session
from ...sync.connecting import dial, in_time, new_session, or_close, until_done
from ...sync.listening import start_server
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
) -> Session:
    """Dial a session over a WebSocket, as its client, and return it once the handshake is done.

    For a `muxado.sync.Dialer`: ``Dialer(dial=lambda: connect(url))``.

    Args:
        url: a ``ws://`` or ``wss://`` URL. What it says after its host is never logged.
        headers: further headers of the handshake, such as ``Authorization``.
        ssl: for ``wss``, a context; by default one with the system's trusted authorities.
        server_hostname: the name the server's certificate must have; the URL's by default.
        config: the session's settings.
        timeout: seconds for all of it except looking the name up: connecting, TLS, and the
            WebSocket's handshake. None: no limit.
        name: what to call the session; see `Session.name`.
        proxy: reach the host through this proxy, as for `muxado.sync.connect`.

    Returns:
        the session. Its `get_extra_info` has the ``headers`` of the server's response, and the
        ``subprotocol``, besides what it has for TCP and TLS.

    Raises:
        UsageError: an argument can't be.
        ProxyRefused: the proxy has not made the connection; an `OSError` too.
        HandshakeRefused: the server has refused the WebSocket.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError` if it
            takes too long).
        RuntimeError: no thread can be started for the session.
    """
    target, new_conversation = check_dial(
        url, headers, ssl, server_hostname, config, timeout, name, proxy
    )
    with in_time(target) as deadline:
        sock, layer = dial(target, deadline)
        channel: Channel = or_close(sock, _upgrade, sock, new_conversation(), deadline, layer)
    made: tuple[Session, object] = or_close(
        sock, new_session, sock, client=True, config=config, name=name, layer=channel
    )
    return made[0]


def _upgrade(
    sock: socket.socket,
    conversation: Conversation,
    deadline: float | None,
    layer: SecuredSocket | None = None,
) -> Channel:
    """Do the WebSocket's handshake, over a layer if there is one."""
    sock.setblocking(False)
    channel = Channel(sock if layer is None else layer, conversation)
    if layer is not None:
        channel.info.update(layer.info)
    until_done(channel.shake_hands, sock, deadline)
    return channel


def serve(
    handler: Callable[[Session], object],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[str] = (),
    config: Config | None = None,
    backlog: int = BACKLOG,
    max_sessions: int | None = None,
    max_receive_memory: int | None = None,
    proxy_protocol: Sequence[str] | None = None,
    reuse_port: bool = False,
    executor: Executor | None = None,
) -> Server:
    """Listen for WebSockets, and run `handler(session)` for the session over each, in a thread.

    Any path is taken; ``session.get_extra_info("path")`` has it, with its query, and
    ``"headers"`` the request's headers. A failing handshake is logged and affects no other client.

    Args:
        handler: a function.
        host: the address to listen on, or several, as for `muxado.sync.serve`.
        port: the TCP port, 0 for any free one (see `Server.addresses`).
        path: listen on this Unix socket instead.
        sock: listen on this bound socket instead.
        ssl: for TLS, a context with a certificate.
        origins: the ``Origin`` headers that are taken, such as ``"https://app.example"``.
            Browsers send one with each WebSocket, so that by default no web page can connect;
            programs send none.
        config: the sessions' settings.
        backlog: as for `muxado.sync.serve`, and so are the following.
        max_sessions: see there.
        max_receive_memory: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        executor: see there.

    Returns:
        the server, which listens already; to be closed, or used with `with`.

    Raises:
        UsageError: an argument can't be.
        OSError: the address can't be listened on.
        RuntimeError: no thread can be started for it.
    """
    check_handler(handler)
    new_conversation = check_listening(origins, config)
    admission = Admission(max_sessions, max_receive_memory, threads=True)
    place = listen_place(host, port, path, sock, ssl, backlog, config, proxy_protocol, reuse_port)

    def upgrade(sock: socket.socket, deadline: float | None) -> Channel:
        return _upgrade(sock, new_conversation(), deadline)

    return start_server(handler, place, backlog, config, admission, executor, upgrade)
