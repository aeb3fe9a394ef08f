"""`connect` dials a session; `client` and `server` make one over a byte stream that is there."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from .. import forks
from ..commands import Command
from ..config import Config
from ..endpoint import Target, check_alpn, dial_target, explain
from ..errors import UsageError
from ..registry import check_name
from .awaitable import AwaitableContext
from .command_link import CommandLink
from .links import Reader, ReaderWriterLink, TransportLink, Writer, take_over, transport_under
from .proxied import NEVER, dial_through
from .reaching import TCP_OPTIONS, hang_up, reach, tls_options
from .secured import over_tls
from .session import Session, new_session

__all__ = ["client", "connect", "server"]


def connect(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    config: Config | None = None,
    timeout: float | None = 30.0,
    name: str = "",
    proxy: str | None = None,
    command: Sequence[str] | None = None,
    **kwds: Any,
) -> AwaitableContext[Session]:
    """Dial a session, as its client. Await it, or use it with `async with`.

    Of a name's addresses the next one is tried too when one has not answered for 0.25 seconds,
    and the first connection that is made is taken; on every event loop.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead; on Linux "\\0name" is an abstract one.
        sock: use this connected socket instead.
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
        kwds: `family`, `proto`, `flags`, `local_addr` and `happy_eyeballs_delay`, as in the
            loop's `create_connection`, for host and port; `ssl_handshake_timeout` and
            `ssl_shutdown_timeout` for TLS.

    Returns:
        an awaitable that gives the `Session`. Cancelled, it closes what it has opened.

    Raises:
        UsageError: not exactly one of host and port, path, sock, or command was given, or an
            argument can't be, such as `server_hostname` without `ssl`.
        TypeError: an argument is unknown.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError` if it
            takes too long).
        ProxyRefused: the proxy has not made the connection; an `OSError` too.
        ProtocolError: the server chose another ALPN protocol.
    """
    target = dial_target(
        host, port, path, sock, ssl, server_hostname, timeout, config, proxy, command=command
    )
    return AwaitableContext("connect", prepare(target, config, name, kwds))


def prepare(
    target: Target, config: Config | None, name: str, kwds: dict[str, Any]
) -> Callable[[], Coroutine[Any, Any, Session]]:
    """Check what is left of the arguments of `connect`, and return what dials, any number of times.

    Raises:
        UsageError: an argument can't be.
        TypeError: an argument is unknown.
    """
    kwds = dict(kwds)
    check_name(name)
    tcp = {option: kwds.pop(option) for option in TCP_OPTIONS if option in kwds}
    if tcp and not target.host:
        raise UsageError(f"{next(iter(tcp))}= is for host and port")
    tls = tls_options(kwds, target.context)
    if kwds:
        raise TypeError(f"connect() got an unexpected keyword argument {next(iter(kwds))!r}")
    return partial(_connect, target, config, name, tcp, tls)


async def _connect(
    target: Target, config: Config | None, name: str, tcp: dict[str, Any], tls: dict[str, Any]
) -> Session:
    try:
        async with asyncio.timeout(target.timeout) as limit:
            return await _dial(target, config, name, tcp, tls)
    except TimeoutError:
        if limit.expired():
            raise target.timed_out() from None
        raise


async def _dial(
    target: Target, config: Config | None, name: str, tcp: dict[str, Any], tls: dict[str, Any]
) -> Session:
    command = None
    if target.command is not None:
        command = Command(target.command, (config or Config()).close_timeout)
    sock = command.sock if command is not None else await reach(target, **tcp)
    forks.guard(sock)
    session, driver = new_session(client=True, config=config, name=name)
    if target.proxy is not None:  # some end both ways with the first end they see
        driver.core.confirm_output()
    loop = driver.loop
    options: dict[str, Any] = {"sock": sock}
    link: TransportLink
    secured_proxy = target.proxy is not None and target.proxy.context is not None
    if command is not None:
        link = CommandLink(driver, command)
    elif target.context is not None and not secured_proxy:
        # The time limit of the whole is the handshake's too, unless it has one of its own.
        times = {"ssl_handshake_timeout": NEVER} | tls
        link, more = over_tls(driver, target.context, times, server_side=False, name=target.name)
        options |= more
    else:
        link = TransportLink(driver)
    try:
        if secured_proxy:
            await dial_through(link, sock, target, tls)
        elif sock.family == getattr(socket, "AF_UNIX", None):
            await loop.create_unix_connection(lambda: link, **options)
        else:
            await loop.create_connection(lambda: link, **options)
        if link.opened is not None:
            await link.opened
    except BaseException as exc:
        # The transport has the socket. Given up in its handshake, asyncio's TLS would leave it.
        hang_up(sock)
        driver.give_up()
        if command is not None:
            command.release()
        if target.context is not None and not secured_proxy:
            explain(exc, target.alpn)
        raise
    try:
        secured = link.get_extra_info("ssl_object")
        if isinstance(secured, ssl_module.SSLObject):
            check_alpn(secured.selected_alpn_protocol(), target.alpn)
    except BaseException:
        session.abort()
        raise
    return session


def client(reader: Reader, writer: Writer, *, config: Config | None = None) -> Session:
    """Make a session over a byte stream that is there already, as its client.

    The pair of `asyncio.open_connection`, over TLS too, is taken over at the full speed of
    its transport, and must not be used again. Any other pair with `read`, `write`, `drain`
    and `close` (a subprocess's two pipes, say) is pumped.

    Args:
        reader: has `await read(n)`.
        writer: has `write(data)`, `await drain()` and `close()`.
        config: the session's settings.

    Raises:
        RuntimeError: no event loop is running.
    """
    return _over_pair(reader, writer, client=True, config=config)


def server(reader: Reader, writer: Writer, *, config: Config | None = None) -> Session:
    """Make a session over a byte stream that is there already, as its server. See `client`."""
    return _over_pair(reader, writer, client=False, config=config)


def _over_pair(reader: Reader, writer: Writer, *, client: bool, config: Config | None) -> Session:
    session, driver = new_session(client=client, config=config)
    transport = transport_under(reader, writer)
    if transport is not None:
        link = TransportLink(driver)
        link.kept = writer
        take_over(link, reader, transport, link.take_early)
    else:
        ReaderWriterLink(driver, reader, writer, "muxado client" if client else "muxado server")
    return session
