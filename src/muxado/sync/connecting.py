"""`connect` dials a session; `client` and `server` make one over a connected socket."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl as ssl_module
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import Any, TypeVar

from .. import forks
from ..commands import Command
from ..config import Config
from ..core import CoreSession, MemoryPool
from ..endpoint import (
    ATTEMPT_DELAY,
    CONNECT_RETRY,
    Target,
    check_alpn,
    dial_target,
    explain,
    in_turn,
    raise_failures,
    reach_path,
)
from ..layers import Layer
from ..proxies import ProxyHandshake
from ..proxy_protocol import ProxyHeader
from ..registry import SessionRecord, check_name
from ..secured_socket import SecuredSocket
from .command_socket import CommandSocket
from .driver import Driver
from .locks import LONGEST_SELECT, PIECE, deadline_of, rest_of
from .session import Session

__all__ = ["client", "connect", "server"]

T = TypeVar("T")

# What connect() says of a connection that is being made; the last is Windows' own.
UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


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
    source_address: tuple[str, int] | None = None,
    proxy: str | None = None,
    command: Sequence[str] | None = None,
) -> Session:
    """Dial a session, as its client, and return it once the connection is there.

    Of a name's addresses the next one is tried too when one has not answered for 0.25 seconds,
    and the first connection that is made is taken.

    Args:
        host: the host to dial over TCP.
        port: its port.
        path: dial this Unix socket instead; on Linux "\\0name" is an abstract one.
        sock: use this connected socket instead; it is the session's from then on.
        ssl: True for TLS with the system's trusted authorities, or a context. True offers the
            ALPN protocol of the wire (`muxado/2`); a server that chooses none is fine.
        server_hostname: the name the server's certificate must have; `host` by default.
        config: the session's settings.
        timeout: seconds for the connection, whichever of the host's addresses it is made to, and
            its TLS handshake; looking the name up comes on top. None: no limit.
        name: what to call the session; see `Session.name`.
        source_address: the local address to dial from.
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
            takes too long).
        ProxyRefused: the proxy has not made the connection; an `OSError` too.
        ProtocolError: the server chose another ALPN protocol.
        RuntimeError: no thread can be started for the session.
    """
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
        secured=True,
    )
    check_name(name)
    layer: SecuredSocket | None = None
    if target.command is not None:
        grace = (config or Config()).close_timeout
        reached: socket.socket = CommandSocket(Command(target.command, grace))
    else:
        with in_time(target) as deadline:
            reached, layer = dial(target, deadline, source_address)
    proxied = target.proxy is not None
    options: dict[str, Any] = {"config": config, "name": name, "proxied": proxied, "layer": layer}
    session: Session
    session, _ = or_close(reached, new_session, reached, client=True, **options)
    return session


class _TimeIsUp(Exception):
    """The time limit of the dial is over, and not one of the system's."""


@contextmanager
def in_time(target: Target) -> Iterator[float | None]:
    """Give the deadline of a dial, and raise its `TimeoutError` when that has passed."""
    try:
        yield deadline_of(target.timeout)
    except _TimeIsUp:
        raise target.timed_out() from None


def dial(
    target: Target, deadline: float | None, source: tuple[str, int] | None = None
) -> tuple[socket.socket, SecuredSocket | None]:
    """Connect a socket to a target, with TLS over it if that is wanted.

    Returns:
        the socket; and what lies over it if it leads to a proxy that is reached by TLS.
    """
    reached = _reach(target, deadline, source)
    if target.proxy is not None and target.proxy.context is not None:
        layer: SecuredSocket = or_close(reached, _go_through, reached, target, deadline)
        return reached, layer
    return reached if target.context is None else _secure(reached, target, deadline), None


def _go_through(sock: socket.socket, target: Target, deadline: float | None) -> SecuredSocket:
    """Do TLS with a proxy, have it connect to the target, and do TLS with that if it is wanted."""
    proxy = target.proxy
    assert proxy is not None
    assert proxy.context is not None
    sock.setblocking(False)
    layer = SecuredSocket(sock, proxy.context, server_side=False, name=proxy.host)
    try:
        _shake_hands(layer, sock, deadline)
    except OSError as exc:
        proxy.explain(exc)
        raise
    _ask(layer, sock, ProxyHandshake(proxy, target.host, target.port), deadline)
    if target.context is not None:
        layer = SecuredSocket(layer, target.context, server_side=False, name=target.name or None)
        try:
            _shake_hands(layer, sock, deadline)
            check_alpn(layer.agreed, target.alpn)
        except BaseException as exc:
            explain(exc, target.alpn)
            raise
    return layer


def _shake_hands(layer: SecuredSocket, sock: socket.socket, deadline: float | None) -> None:
    try:
        until_done(layer.do_handshake, sock, deadline)
    except ssl_module.SSLEOFError as exc:
        lost = "the connection was lost in the TLS handshake"
        raise ConnectionResetError(errno.ECONNRESET, lost) from exc


def _reach(target: Target, deadline: float | None, source: tuple[str, int] | None) -> socket.socket:
    if target.sock is not None:
        given: socket.socket = target.sock
        return given
    if target.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        forks.guard(sock)
        or_close(sock, _reach_path, sock, target.path, deadline)
        return sock
    host, port = target.first_hop
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    reached = _race(target, in_turn(found), deadline, source)
    if target.proxy is not None and target.proxy.context is None:
        handshake = ProxyHandshake(target.proxy, target.host, target.port)
        or_close(reached, _ask, reached, reached, handshake, deadline)
    return reached


def _ask(
    channel: socket.socket | SecuredSocket,
    sock: socket.socket,
    handshake: ProxyHandshake,
    deadline: float | None,
) -> None:
    """Have a proxy connect a socket to where it is to go, over what leads to the proxy."""
    step = handshake.step()
    while step is not None:
        if isinstance(step, int):
            step = handshake.step(until_done(partial(channel.recv, step), sock, deadline))
        else:
            sent = until_done(partial(channel.send, memoryview(step)), sock, deadline)
            step = step[sent:] or handshake.step()


def _reach_path(sock: socket.socket, path: str, deadline: float | None) -> None:
    sock.setblocking(False)
    while not reach_path(sock, path):
        if rest_of(deadline) == 0:
            raise _TimeIsUp
        sleep(CONNECT_RETRY)


def _race(
    target: Target,
    addresses: list[tuple[Any, ...]],
    deadline: float | None,
    source: tuple[str, int] | None,
) -> socket.socket:
    """Connect to the first address that answers; the next one is begun after a while."""
    failures: list[OSError] = []
    attempts: set[socket.socket] = set()
    next_at = 0.0
    try:
        with selectors.DefaultSelector() as selector:
            while addresses or attempts:
                if addresses and (monotonic() >= next_at or not attempts):
                    try:
                        attempts.add(_attempt(addresses.pop(0), source, selector))
                    except OSError as exc:
                        failures.append(exc)
                        continue
                    next_at = monotonic() + ATTEMPT_DELAY
                until = min(inf if deadline is None else deadline, next_at if addresses else inf)
                for sock in _select(selector, until):
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    attempts.remove(sock)
                    if number == 0:
                        return sock
                    selector.unregister(sock)
                    sock.close()
                    failures.append(OSError(number, os.strerror(number)))
                    next_at = 0.0
                if rest_of(deadline) == 0:
                    raise _TimeIsUp
        raise_failures(failures, target)
    finally:
        for sock in attempts:
            sock.close()
        del failures  # a cycle otherwise


def _attempt(
    found: tuple[Any, ...], source: tuple[str, int] | None, selector: selectors.BaseSelector
) -> socket.socket:
    """Begin to connect to an address."""
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        forks.guard(sock)
        sock.setblocking(False)
        if source is not None:
            sock.bind(source)
        number = sock.connect_ex(address)
        if number not in UNDER_WAY:
            raise OSError(number, os.strerror(number))
        selector.register(sock, selectors.EVENT_WRITE)
    except BaseException:
        sock.close()
        raise
    return sock


def _select(selector: selectors.BaseSelector, until: float) -> list[socket.socket]:
    """Wait until sockets are ready, or the time is up; a signal interrupts it on every system."""
    while True:
        rest = max(0.0, until - monotonic())
        ready = [key.fileobj for key, _ in selector.select(min(rest, PIECE, LONGEST_SELECT))]
        if ready or rest == 0:
            return ready  # type: ignore[return-value]  # they are the sockets that were registered


def _secure(sock: socket.socket, target: Target, deadline: float | None) -> socket.socket:
    """Do the TLS handshake."""
    assert target.context is not None
    try:
        sock.setblocking(False)
        secured = target.context.wrap_socket(
            sock, server_hostname=target.name or None, do_handshake_on_connect=False
        )
    except BaseException:
        sock.close()
        raise
    forks.guard(secured)
    try:
        until_done(secured.do_handshake, secured, deadline)
        check_alpn(secured.selected_alpn_protocol(), target.alpn)
    except BaseException as exc:
        secured.close()
        explain(exc, target.alpn)
        raise
    return secured


def until_done(step: Callable[[], T], sock: socket.socket, deadline: float | None) -> T:
    """Take a step again whenever its socket lets it go on."""
    while True:
        try:
            return step()
        except (BlockingIOError, ssl_module.SSLWantReadError):
            _wait(sock, selectors.EVENT_READ, deadline)
        except ssl_module.SSLWantWriteError:
            _wait(sock, selectors.EVENT_WRITE, deadline)


def _wait(sock: socket.socket, event: int, deadline: float | None) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        if not _select(selector, inf if deadline is None else deadline):
            raise _TimeIsUp


def or_close(sock: socket.socket, step: Any, *args: Any, **kwds: Any) -> Any:
    """Take a step of dialling; close the socket if it fails."""
    try:
        return step(*args, **kwds)
    except BaseException:
        sock.close()
        raise


def client(sock: socket.socket, *, config: Config | None = None) -> Session:
    """Make a session over a connected socket, as its client. It does not wait.

    Args:
        sock: the socket, which may be an `ssl.SSLSocket` after its handshake. It is the session's
            from then on, which makes it non-blocking and closes it.
        config: the session's settings; `Config()` by default.

    Returns:
        the session, to be closed, or used with `with`.

    Raises:
        RuntimeError: no thread can be started for it; the socket is still the caller's.
    """
    return new_session(sock, client=True, config=config)[0]


def server(sock: socket.socket, *, config: Config | None = None) -> Session:
    """Make a session over a connected socket, as its server. It does not wait.

    Args:
        sock: the socket, as for `client`.
        config: the session's settings; `Config()` by default.

    Returns:
        the session, to be closed, or used with `with`.

    Raises:
        RuntimeError: no thread can be started for it; the socket is still the caller's.
    """
    return new_session(sock, client=False, config=config)[0]


def new_session(
    sock: socket.socket,
    *,
    client: bool,
    config: Config | None,
    name: str = "",
    pool: MemoryPool | None = None,
    proxy_header: ProxyHeader | None = None,
    layer: Layer | None = None,
    proxied: bool = False,
) -> tuple[Session, Driver]:
    """Make a session over a connected socket, or a layer over it, and its driver.

    A proxy may end both ways with the first end it sees, so a session through one confirms its
    output.

    Raises:
        RuntimeError: no thread can be started for it; the socket is still the caller's.
    """
    core = CoreSession(client=client, config=config or Config(), now=monotonic(), pool=pool)
    if layer is not None or proxied:
        core.confirm_output()
    if layer is not None:
        core.agree(layer.agreed)
    elif isinstance(sock, ssl_module.SSLSocket):
        core.agree(sock.selected_alpn_protocol())
    driver = Driver(core, sock, SessionRecord(core, name, proxy_header), layer)
    return Session(driver), driver
