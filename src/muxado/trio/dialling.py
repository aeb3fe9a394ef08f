"""Sessions by dialling, for trio."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, check_alpn, check_target, client_context, explain
from ..errors import UsageError
from .session import Session, run_session

__all__ = ["connect"]


def connect(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: trio.socket.SocketType | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    config: Config | None = None,
) -> AbstractAsyncContextManager[Session]:
    """Dial a session, as its client: ``async with connect(host, port) as session``.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead.
        sock: use this connected trio socket instead.
        ssl: True for TLS with the system's trusted authorities, or a context. True offers the
            ALPN protocol `muxado/2`; a server that chooses none is fine.
        server_hostname: the name the server's certificate must have; `host` by default.
        config: the session's settings.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails).
        ProtocolError: the server chose another ALPN protocol.
    """
    check_target(host, port, path, sock)
    context = client_context(ssl)
    name = server_hostname if server_hostname is not None else host
    if context is not None and context.check_hostname and not name:
        raise UsageError("TLS over path= or sock= needs server_hostname=")
    return _connect(host, port, path, sock, context, name, config)


@asynccontextmanager
async def _connect(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: trio.socket.SocketType | None,
    context: ssl_module.SSLContext | None,
    name: str | None,
    config: Config | None,
) -> AsyncIterator[Session]:
    transport: trio.abc.Stream
    if path is not None:
        transport = await trio.open_unix_socket(os.fspath(path))
    elif sock is not None:
        transport = trio.SocketStream(sock)
    else:
        assert host is not None
        assert port is not None
        transport = await trio.open_tcp_stream(host, port)
    if context is not None:
        transport = await _secure(transport, context, name)
    async with run_session(transport, client=True, config=config) as session:
        yield session


async def _secure(
    transport: trio.abc.Stream, context: ssl_module.SSLContext, name: str | None
) -> trio.abc.Stream:
    secured = trio.SSLStream(transport, context, server_hostname=name or None)
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            await secured.do_handshake()
        check_alpn(secured.selected_alpn_protocol())
    except BaseException as exc:
        await trio.aclose_forcefully(transport)
        if isinstance(exc, trio.TooSlowError):
            raise TimeoutError("the TLS handshake took too long") from exc
        if isinstance(exc, trio.BrokenResourceError):
            if isinstance(exc.__cause__, ssl_module.SSLError):
                explain(exc.__cause__)
                raise exc.__cause__ from None
            raise ConnectionResetError("the connection was lost in the TLS handshake") from exc
        raise
    return secured
