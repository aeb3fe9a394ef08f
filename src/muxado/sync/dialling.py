"""Sessions by dialling, for threads."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from typing import Any

from ..config import Config
from ..endpoint import check_alpn, check_target, client_context, explain
from ..errors import UsageError
from .locks import deadline_of, rest_of
from .session import Session, client

__all__ = ["connect"]


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
    source_address: tuple[str, int] | None = None,
) -> Session:
    """Dial a session, as its client, and return it once the connection is there.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead.
        sock: use this connected socket instead; it is the session's from then on.
        ssl: True for TLS with the system's trusted authorities, or a context. True offers the
            ALPN protocol `muxado/2`; a server that chooses none is fine.
        server_hostname: the name the server's certificate must have; `host` by default.
        config: the session's settings.
        timeout: seconds for the connection, whichever of the host's addresses it is made to, and
            its handshake; looking the name up comes on top. None: no limit.
        source_address: the local address to dial from.

    Raises:
        UsageError: not exactly one of host and port, path, or sock was given.
        OSError: the connection can't be made (`ssl.SSLError` if TLS fails, `TimeoutError`).
        ProtocolError: the server chose another ALPN protocol.
        RuntimeError: no thread can be started for the session.
    """
    check_target(host, port, path, sock)
    context = client_context(ssl)
    name = server_hostname if server_hostname is not None else host
    if context is not None and context.check_hostname and not name:
        raise UsageError("TLS over path= or sock= needs server_hostname=")
    deadline = deadline_of(timeout)
    if path is not None:
        sock = socket.socket(socket.AF_UNIX)
        _or_close(sock, _reach, sock, os.fspath(path), deadline)
    elif sock is None:
        sock = _dial(host, port, deadline, source_address)
    if context is not None:
        try:
            _or_close(sock, _limit, sock, deadline)
            secured = _or_close(sock, context.wrap_socket, sock, server_hostname=name or None)
        except ssl_module.SSLError as exc:
            explain(exc)
            raise
        _or_close(secured, check_alpn, secured.selected_alpn_protocol())
        sock = secured
    session: Session = _or_close(sock, client, sock, config=config)
    return session


def _dial(
    host: str | None, port: int | None, deadline: float | None, source: tuple[str, int] | None
) -> socket.socket:
    """Connect to the first of a name's addresses that answers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            if source is not None:
                sock.bind(source)
            # A dead address leaves the others their share.
            _reach(sock, address, deadline, len(found) - number)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
    assert failure is not None  # getaddrinfo finds an address or raises
    try:
        raise failure
    finally:
        del failure  # a cycle otherwise


def _reach(sock: socket.socket, address: Any, deadline: float | None, ways: int = 1) -> None:
    _limit(sock, deadline, ways)
    sock.connect(address)


def _limit(sock: socket.socket, deadline: float | None, ways: int = 1) -> None:
    """Let the socket's next step take its share of the time that is left."""
    rest = rest_of(deadline)
    if rest == 0:
        raise TimeoutError("timed out")
    sock.settimeout(None if rest is None else rest / ways)


def _or_close(sock: socket.socket, step: Any, *args: Any, **kwds: Any) -> Any:
    """Take a step of dialling; close the socket if it fails."""
    try:
        return step(*args, **kwds)
    except BaseException:
        sock.close()
        raise
