"""Sessions by dialling, and sessions over a byte stream that is there already."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from functools import partial
from typing import Any

from ..config import Config
from ..endpoint import check_alpn, check_target, client_context, explain
from ..errors import UsageError
from .link import TransportLink
from .opening import Opening
from .pump import PumpLink, Reader, Writer
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
    **kwds: Any,
) -> Opening[Session]:
    """Dial a session, as its client. Await it, or use it with `async with`.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead.
        sock: use this connected socket instead.
        ssl: True for TLS with the system's trusted authorities, or a context. True offers the
            ALPN protocol `muxado/2`; a server that chooses none is fine.
        server_hostname: the name the server's certificate must have; `host` by default.
        config: the session's settings.
        kwds: further arguments of the loop's `create_connection` or `create_unix_connection`.

    Returns:
        an awaitable that gives the `Session`. Cancelled, it closes what it has opened.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given, or
            `server_hostname` and `ssl` don't go together.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails).
        ProtocolError: the server chose another ALPN protocol.
    """
    check_target(host, port, path, sock)
    context = client_context(ssl)
    if context is None and server_hostname is not None:
        raise UsageError("server_hostname= is for TLS: pass ssl= too")
    if context is not None and server_hostname is None and host is None:
        if context.check_hostname:
            raise UsageError("TLS over path= or sock= needs server_hostname=")
        server_hostname = ""
    if context is not None:
        kwds.setdefault("ssl_handshake_timeout", 10.0)
    kwds |= {"ssl": context, "server_hostname": server_hostname, "sock": sock}
    if path is not None:
        kwds["path"] = os.fspath(path)
    else:
        kwds |= {"host": host, "port": port}
    return Opening(partial(_connect, config, kwds))


async def _connect(config: Config | None, kwds: dict[str, Any]) -> Session:
    session, driver = new_session(client=True, config=config)
    link = TransportLink(driver)
    loop = driver.loop
    try:
        if "path" in kwds:
            await loop.create_unix_connection(lambda: link, **kwds)
        else:
            await loop.create_connection(lambda: link, **kwds)
    except ssl_module.SSLError as exc:
        explain(exc)
        raise
    except ConnectionResetError as exc:
        if kwds["ssl"] is not None:
            exc.add_note("the server hung up in the TLS handshake: does it speak TLS on this port?")
        raise
    try:
        tls = link.get_extra_info("ssl_object")
        if isinstance(tls, ssl_module.SSLObject):
            check_alpn(tls.selected_alpn_protocol())
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
    transport: asyncio.Transport = getattr(writer, "transport", None)  # type: ignore[assignment]
    # A subprocess's pipes are such a pair too, but with a transport each way.
    if (
        isinstance(reader, asyncio.StreamReader)
        and transport is not None
        and getattr(reader, "_transport", None) is transport
    ):
        link = TransportLink(driver)
        link.kept = writer
        _take_over(link, reader, transport)
    else:
        PumpLink(driver, reader, writer, "muxado client" if client else "muxado server")
    return session


def _take_over(
    link: TransportLink, reader: asyncio.StreamReader, transport: asyncio.Transport
) -> None:
    """Put a link in the place of asyncio's stream protocol, with what it has read already."""
    if transport.is_closing():  # and nobody may tell the link any more
        asyncio.get_running_loop().call_soon(link.connection_lost, None)
        return
    ended = reader.at_eof() or getattr(reader, "_eof", False)
    reader.feed_eof()  # so that what is buffered can be read without waiting
    left = reader.read()
    try:
        left.send(None)
    except StopIteration as exc:
        early: bytes = exc.value
    transport.set_protocol(link)
    link.connection_made(transport)
    if early:
        link.take_early(early)
    if ended:
        link.eof_received()
