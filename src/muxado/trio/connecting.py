"""`connect` dials a session; `client` and `server` make one over a trio stream."""

from __future__ import annotations

import errno
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf

import trio

from .. import forks
from ..commands import Command
from ..config import Config
from ..endpoint import (
    ATTEMPT_DELAY,
    CONNECT_RETRY,
    Target,
    check_alpn,
    dial_target,
    explain,
    reach_path,
)
from ..proxies import Proxy, ProxyHandshake
from ..registry import check_name
from .block import SessionBlock
from .command_stream import CommandStream
from .driver import close_forcefully
from .secured import secure
from .session import Session

__all__ = ["client", "connect", "server"]


def connect(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    config: Config | None = None,
    timeout: float | None = 30.0,
    name: str = "",
    proxy: str | None = None,
    command: Sequence[str] | None = None,
) -> AbstractAsyncContextManager[Session]:
    """Dial a session, as its client: ``async with connect(host, port) as session``.

    Of a name's addresses the next one is tried too when one has not answered for 0.25 seconds,
    and the first connection that is made is taken.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead; on Linux "\\0name" is an abstract one.
        sock: use this connected trio socket instead.
        ssl: True for TLS with the system's trusted authorities, or a context. True offers the
            ALPN protocol of the wire (`muxado/2`); a server that chooses none is fine.
        server_hostname: the name the server's certificate must have; `host` by default.
        config: the session's settings.
        timeout: seconds for all of it: looking the name up, connecting, and the TLS handshake.
            None: no limit.
        name: what to call the session; see `Session.name`.
        proxy: reach host and port through this proxy: an ``http://`` URL (CONNECT), an
            ``https://`` one (CONNECT over TLS with the proxy, whose certificate is verified) or a
            ``socks5://`` one (needs the extra ``proxy``), with a name and a password if it wants
            them. "env" takes it from HTTPS_PROXY, ALL_PROXY and NO_PROXY. It looks the host's
            name up. By default none is used.
        command: run this program with these arguments instead, such as ``["ssh", "host",
            "python", "-m", "program"]``; the session goes over its standard input and output,
            and `serve_stdio` is its other end. Its standard error is this process's. It is sent
            SIGTERM if it goes on for `Config.close_timeout` after the session, then SIGKILL.

    Raises:
        UsageError: not exactly one of host and port, path, sock, or command was given, or an
            argument can't be, such as `server_hostname` without `ssl`.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError` if it
            takes too long); raised when the block is entered.
        ProxyRefused: the proxy has not made the connection; an `OSError` too.
        ProtocolError: the server chose another ALPN protocol.
    """
    kind = trio.socket.SocketType
    target = dial_target(
        host,
        port,
        path,
        sock,
        ssl,
        server_hostname,
        timeout,
        config,
        proxy,
        command=command,
        kind=kind,
    )
    check_name(name)

    async def begin() -> trio.abc.Stream:
        if target.command is not None:
            grace = (config or Config()).close_timeout
            return CommandStream(Command(target.command, grace))
        return await in_time(target, partial(dial, target))

    proxied = target.proxy is not None
    return SessionBlock(begin, sock, client=True, config=config, name=name, proxied=proxied)


async def in_time(
    target: Target, reach: Callable[[], Awaitable[trio.abc.Stream]]
) -> trio.abc.Stream:
    """Dial within the target's time, or raise its `TimeoutError`."""
    with trio.move_on_after(inf if target.timeout is None else target.timeout):
        return await reach()
    raise target.timed_out()


async def dial(target: Target) -> trio.abc.Stream:
    """Connect a stream to a target, with TLS over it if that is wanted."""
    transport: trio.abc.Stream
    if target.path is not None:
        transport = trio.SocketStream(await _reach_path(target.path))
    elif target.sock is not None:
        transport = trio.SocketStream(target.sock)
    else:
        host, port = target.first_hop
        transport = await trio.open_tcp_stream(host, port, happy_eyeballs_delay=ATTEMPT_DELAY)
    if isinstance(transport, trio.SocketStream):
        forks.guard(transport.socket)
    if target.proxy is not None:
        if target.proxy.context is not None:
            transport = await _secure_proxy(transport, target.proxy, target.proxy.context)
        await _ask(transport, ProxyHandshake(target.proxy, target.host, target.port))
    if target.context is not None:
        transport = await _secure(transport, target)
    return transport


async def _ask(transport: trio.abc.Stream, handshake: ProxyHandshake) -> None:
    """Have a proxy connect a stream to where it is to go; close it if that fails."""
    try:
        step = handshake.step()
        while step is not None:
            if isinstance(step, int):
                step = handshake.step(await transport.receive_some(step))
            else:
                await transport.send_all(step)
                step = handshake.step()
    except BaseException as exc:
        await close_forcefully(transport)
        if isinstance(exc, trio.BrokenResourceError) and isinstance(exc.__cause__, OSError):
            raise exc.__cause__ from None
        raise


async def _reach_path(path: str) -> trio.socket.SocketType:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        while not reach_path(sock, path):  # noqa: ASYNC110
            await trio.sleep(CONNECT_RETRY)
        return trio.socket.from_stdlib_socket(sock)
    except BaseException:
        sock.close()
        raise


async def _secure_proxy(
    transport: trio.abc.Stream, proxy: Proxy, context: ssl_module.SSLContext
) -> trio.abc.Stream:
    try:
        return await _shake_hands(transport, context, proxy.host, "")
    except OSError as exc:
        proxy.explain(exc)
        raise


async def _secure(transport: trio.abc.Stream, target: Target) -> trio.abc.Stream:
    assert target.context is not None
    try:
        return await _shake_hands(transport, target.context, target.name, target.alpn)
    except BaseException as exc:
        explain(exc, target.alpn)
        raise


async def _shake_hands(
    transport: trio.abc.Stream, context: ssl_module.SSLContext, name: str, alpn: str
) -> trio.abc.Stream:
    """Lay TLS over a stream; close it if that fails."""
    secured = secure(transport, context, name=name or None)
    try:
        await secured.do_handshake()
        check_alpn(secured.selected_alpn_protocol(), alpn)
    except BaseException as exc:
        await close_forcefully(transport)
        if isinstance(exc, trio.BrokenResourceError):
            if isinstance(exc.__cause__, ssl_module.SSLError):
                raise exc.__cause__ from None
            raise ConnectionResetError(
                errno.ECONNRESET, "the connection was lost in the TLS handshake"
            ) from exc
        raise
    return secured


def client(
    stream: trio.abc.Stream, *, config: Config | None = None
) -> AbstractAsyncContextManager[Session]:
    """Make a session over a trio stream, as its client: ``async with client(stream) as session``.

    The end of the block closes the session in order, and aborts it if the block raises.

    Args:
        stream: carries the session, is its own from then on, and is closed with it.
        config: the session's settings.
    """
    return SessionBlock.over(stream, client=True, config=config)


def server(
    stream: trio.abc.Stream, *, config: Config | None = None
) -> AbstractAsyncContextManager[Session]:
    """Make a session over a trio stream, as its server. See `client` for the arguments."""
    return SessionBlock.over(stream, client=False, config=config)
