"""Checks the arguments of `connect`, `serve` and `listen` for all front ends: addresses and TLS.

Each front end passes its arguments to `dial_target` or `listen_place`, so that the same mistake
raises the same error in all of them, before any connection or listener is made.

TLS verifies by default, offers the wire's ALPN protocol (`muxado/2`), and explains refusals.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl as ssl_module
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from ssl import SSLContext
from typing import Any, NoReturn

from .commands import check_command
from .config import AUTO, Config
from .errors import ProtocolError, UsageError
from .proxies import Proxy, choose_proxy
from .proxy_protocol import TrustedProxies
from .wire import FORMATS

# Connections of a listener that may be in their TLS handshake, and sessions that may wait to be
# accepted.
MOST_PENDING = 256
HANDSHAKE_TIMEOUT = 10.0  # seconds
ATTEMPT_DELAY = 0.25  # seconds, after which the next of a name's addresses is tried too (RFC 8305)
BACKLOG = 128  # connections that the kernel keeps waiting, if the caller says nothing else
ACCEPT_RETRY = 0.1  # seconds, after a failure to accept a connection
CONNECT_RETRY = 0.02  # seconds, until a Unix socket with a full backlog is tried again

NOTSENT_LOWAT = 128 * 1024  # bytes

# What listening fails with at an address that a name has, and this machine hasn't.
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect.

    Attributes:
        host: a name or an address, "" with `path` or `sock`.
        port: the TCP port.
        path: the Unix socket's path, or None.
        sock: the connected socket that the caller passed, or None.
        context: for TLS, None without.
        name: the name that the server's certificate must have; "" if it need not.
        timeout: seconds for connecting with the handshake, None for no limit.
        proxy: the proxy to go through, or None.
        command: the command to run instead, or None.
        alpn: the wire's ALPN protocol, "" if it has none.
    """

    host: str
    port: int
    path: str | None
    sock: Any
    context: SSLContext | None
    name: str
    timeout: float | None
    proxy: Proxy | None
    command: tuple[str, ...] | None
    alpn: str

    def __str__(self) -> str:
        if self.path is not None:
            return repr(self.path)
        if self.sock is not None:
            return "the socket"
        if self.command is not None:
            return f"the command {self.command[0]!r}"
        through = f" through {self.proxy}" if self.proxy is not None else ""
        return f"{self.host}:{self.port}{through}"

    @property
    def first_hop(self) -> tuple[str, int]:
        """The host and port to connect to: the proxy's, if there is one."""
        place = self.proxy or self
        return place.host, place.port

    def timed_out(self) -> TimeoutError:
        """Return the error for a timeout."""
        return TimeoutError(
            errno.ETIMEDOUT, f"no session with {self} within {self.timeout:g} seconds"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how to listen.

    Attributes:
        hosts: names and addresses; [None] stands for all addresses of this machine.
        port: the TCP port, 0 for any free one.
        path: the Unix socket's path, or None.
        sock: the listening socket that the caller passed, or None.
        context: for TLS, None without.
        proxies: which peers begin with a PROXY header; None if none does.
        reuse_port: whether other processes may listen on the same port.
    """

    hosts: list[str | None]
    port: int
    path: str | None
    sock: Any
    context: SSLContext | None
    proxies: TrustedProxies | None
    reuse_port: bool


def dial_target(
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: object | None,
    ssl: SSLContext | bool | None,
    server_hostname: str | None,
    timeout: float | None,
    config: Config | None,
    proxy: str | None,
    *,
    command: Sequence[str] | None = None,
    kind: type[Any] = socket.socket,
    secured: bool = False,
) -> Target:
    """Check the arguments of `connect`.

    Args:
        host: as for `connect`, and so are the following.
        port: see there.
        path: see there.
        sock: see there.
        ssl: see there.
        server_hostname: see there.
        timeout: see there.
        config: see there.
        proxy: see there.
        command: see there.
        kind: the type of the front end's sockets.
        secured: whether `sock` may be an `ssl.SSLSocket`.

    Raises:
        UsageError: an argument is wrong, or doesn't go with another one.
    """
    _check_ways(host, port, path, sock, command)
    if command is not None and (ssl or server_hostname is not None):
        raise UsageError("ssl= is not for command=, which has the protection of the command's own")
    if port is not None and host is None:
        raise UsageError("port= needs host=, such as 'localhost' for this machine")
    if host is not None:
        if host == "":
            raise UsageError("host= is empty: pass 'localhost' for this machine")
        _check_host(host)
        _check_port(port, 1)
    elif proxy is not None:
        raise UsageError("proxy= is for host and port")
    _check_sock(sock, kind, secured and not ssl)
    check_config(config)
    check_client(config)
    context = client_context(ssl, config)
    if server_hostname is not None:
        if context is None:
            raise UsageError("server_hostname= is for TLS: pass ssl= too")
        _check_host(server_hostname, "server_hostname=")
    name = server_hostname if server_hostname is not None else (host or "")
    if context is not None and context.check_hostname and not name:
        raise UsageError("TLS needs server_hostname=, the name in the server's certificate")
    return Target(
        host or "",
        port or 0,
        _check_path(path),
        sock,
        context,
        name if context is not None else "",
        check_timeout(timeout),
        choose_proxy(proxy, host or "", port or 0),
        check_command(command),
        alpn_of(config),
    )


def listen_place(
    host: str | Sequence[str] | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    sock: object | None,
    ssl: SSLContext | None,
    backlog: int,
    config: Config | None,
    proxy_protocol: Sequence[str] | None,
    reuse_port: bool,
    *,
    kind: type[Any] = socket.socket,
) -> Place:
    """Check the arguments of `serve` and `listen`.

    Args:
        host: as for `listen`, and so are the following.
        port: see there.
        path: see there.
        sock: see there.
        ssl: see there.
        backlog: see there.
        config: see there.
        proxy_protocol: see there.
        reuse_port: see there.
        kind: the type of the front end's sockets.

    Raises:
        UsageError: an argument is wrong, or doesn't go with another one.
    """
    _check_ways(host, port, path, sock)
    _check_reuse_port(reuse_port, port)
    hosts: list[str | None] = [None]
    if host is not None and not isinstance(host, str):
        if not isinstance(host, (list, tuple)) or not host:
            raise UsageError(f"host= must be a string or a list of strings, not {host!r}")
        hosts = list(dict.fromkeys(host))
    elif host:
        hosts = [host]
    for each in hosts:
        if each is not None:
            _check_host(each)
    if port is not None:
        _check_port(port, 0)
    _check_sock(sock, kind, False)
    if type(backlog) is not int or backlog < 1:
        raise UsageError(f"backlog= must be a whole number of at least 1, not {backlog!r}")
    check_config(config)
    return Place(
        [each or None for each in hosts],
        port or 0,
        _check_path(path),
        sock,
        server_context(ssl),
        TrustedProxies(proxy_protocol) if proxy_protocol is not None else None,
        reuse_port,
    )


def _check_ways(*values: object) -> None:
    host, port, *others = values
    ways = (host is not None or port is not None, *[each is not None for each in others])
    if sum(ways) != 1:
        command = ", or command=" if len(others) > 2 else ""
        raise UsageError(f"give either host and port, or path=, or sock={command}")
    if host is not None and port is None:
        raise UsageError("host= needs port=")


def _check_host(host: object, argument: str = "host=") -> None:
    if not isinstance(host, str):
        raise UsageError(f"{argument} must be a string, not {host!r}")
    try:
        host.encode("idna")
    except UnicodeError as exc:
        raise UsageError(f"{argument} can't be a name: {host!r}") from exc
    if "\0" in host:
        raise UsageError(f"{argument} can't be a name: {host!r}")


def _check_port(port: object, least: int) -> None:
    if type(port) is not int or not least <= port <= 65535:
        raise UsageError(f"port= must be a number from {least} to 65535, not {port!r}")


def _check_reuse_port(reuse_port: object, port: object) -> None:
    if not isinstance(reuse_port, bool):
        raise UsageError(f"reuse_port= must be True or False, not {reuse_port!r}")
    if reuse_port and port is None:
        raise UsageError("reuse_port= is for host and port")
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("reuse_port= needs SO_REUSEPORT, which this system doesn't have")


def _check_path(path: object) -> str | None:
    if path is None:
        return None
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("path= needs Unix sockets, which this system doesn't have")
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"path= must be a path, not {path!r}") from None
    if not name or "\0" in name[1:]:
        raise UsageError(f"path= can't be a Unix socket's: {name!r}")
    return name


def _check_sock(sock: Any, kind: type[Any], secured: bool) -> None:
    if sock is None:
        return
    if not isinstance(sock, kind):
        raise UsageError(f"sock= must be a {kind.__module__}.{kind.__qualname__}, not {sock!r}")
    if sock.type != socket.SOCK_STREAM:
        raise UsageError(f"sock= must be a stream socket, not {sock!r}")
    if isinstance(sock, ssl_module.SSLSocket) and not secured:
        raise UsageError("sock= must be a plain socket, not an ssl.SSLSocket: pass ssl= for TLS")


def check_config(config: object) -> None:
    """Raise `UsageError` unless `config` is a `Config` or None."""
    if config is not None and not isinstance(config, Config):
        raise UsageError(f"config= must be a muxado.Config, not {config!r}")


def check_client(config: Config | None) -> None:
    """Raise `UsageError` if the wire is left to the peer, which is for servers."""
    if config is not None and config.wire == AUTO:
        raise UsageError(
            "Config(wire='auto') is for servers, which take the wire of each client's first bytes:"
            " a client must say which one it speaks"
        )


def alpn_of(config: Config | None) -> str:
    """Return the ALPN protocol of the wire, "" if it has none."""
    wire = "muxado-v2" if config is None else config.wire
    return FORMATS[wire].rules.alpn if wire != AUTO else ""


def check_handler(handler: object) -> None:
    """Raise `UsageError` unless `handler` can be called."""
    if not callable(handler):
        raise UsageError(f"the handler must be a function, not {handler!r}")


def check_timeout(timeout: object, argument: str = "timeout=") -> float | None:
    """Return a time limit in seconds, None if there is none.

    Raises:
        UsageError: it is not a number above 0.
    """
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout > 0:
        raise UsageError(
            f"{argument} must be a number of seconds above 0, or None, not {timeout!r}"
        )
    return None if timeout == inf else float(timeout)


def in_turn(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the results of `getaddrinfo` in the order to try them, alternating the families.

    The family that the system prefers comes first (RFC 8305 section 4).
    """
    families: dict[object, list[tuple[Any, ...]]] = {}
    for each in dict.fromkeys(found):
        families.setdefault(each[0], []).append(each)
    ordered = []
    while any(families.values()):
        ordered += [each.pop(0) for each in families.values() if each]
    return ordered


def raise_failures(failures: list[OSError], target: Target) -> NoReturn:
    """Raise the one error for all addresses of a name that were tried."""
    try:
        if len(failures) == 1:
            raise failures[0]
        if not failures:
            raise OSError(f"{target} has no address")
        told = "; ".join(dict.fromkeys(map(str, failures)))
        first = failures[0]
        # OSError makes the subclass that belongs to the number.
        error = OSError(first.errno, f"no address of {target} could be reached: {told}")
        raise error from first
    finally:
        del failures  # a cycle otherwise


def reach_path(sock: socket.socket, path: str) -> bool:
    """Connect a non-blocking Unix socket; return False if its listener's backlog is full.

    The caller then tries again later, because the system does not report when there is room.
    """
    try:
        sock.connect(path)
    except BlockingIOError:
        return False
    return True


def free_path(name: str) -> str:
    """Remove an old Unix socket's file, as asyncio does; return the path for the new listener.

    The file outlives its listener, and would keep the next one from listening. A file that is
    not a socket is left alone.
    """
    if not name.startswith("\0"):  # an abstract name has no file
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(name).st_mode):
                os.remove(name)
    return name


def listen_at(
    found: Iterable[tuple[Any, ...]], backlog: int, reuse_port: bool
) -> list[socket.socket]:
    """Return sockets that listen at each of the addresses of a name that this machine has.

    Args:
        found: what `getaddrinfo` has given.
        backlog: connections that the kernel keeps waiting.
        reuse_port: whether others may listen there too.

    Raises:
        OSError: one of them can't be listened on, or this machine has none of them.
    """
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, *_, address in dict.fromkeys(found):
            try:
                sockets.append(
                    socket.create_server(
                        address, family=family, backlog=backlog, reuse_port=reuse_port
                    )
                )
            except OSError as exc:
                if exc.errno not in NOT_HERE:
                    raise
                failure = exc
        if failure is not None and not sockets:
            raise failure
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def tune(sock: Any) -> None:
    """Set the TCP options of a connection's socket; a socket that is not TCP is left alone.

    TCP_NODELAY sends small frames at once. TCP_NOTSENT_LOWAT keeps little unsent data in the
    kernel, where the priorities of streams have no effect.
    """
    options = [(socket.TCP_NODELAY, 1)]
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        options.append((socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT))
    for option, value in options:
        # Unix sockets lack these options, and some transports' sockets are other objects.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def describe(thing: object, addresses: Iterable[object], sessions: int) -> str:
    """Return the repr of a listener or a server."""
    where = " ".join(map(repr, addresses)) or "closed"
    return f"<{type(thing).__name__} {where} sessions={sessions}>"


def client_context(
    ssl: SSLContext | bool | None, config: Config | None = None
) -> SSLContext | None:
    """Return the context to connect with; the caller's own context is not changed.

    Raises:
        UsageError: `ssl` is of another type, or a context for servers.
    """
    if isinstance(ssl, SSLContext):
        if ssl.protocol == ssl_module.PROTOCOL_TLS_SERVER:
            raise UsageError(
                "ssl= is a context for servers: connect() needs one for ssl.Purpose.SERVER_AUTH"
            )
        return ssl
    if ssl is not None and not isinstance(ssl, bool):
        raise UsageError(f"ssl= must be an ssl.SSLContext, True or None, not {ssl!r}")
    if not ssl:
        return None
    context = ssl_module.create_default_context()
    protocol = alpn_of(config)
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


def server_context(ssl: SSLContext | bool | None) -> SSLContext | None:
    """Return the context to listen with.

    Raises:
        UsageError: `ssl` is True (a server needs a certificate), of another type, or a context
            for clients.
    """
    if ssl is True:
        raise UsageError("a TLS server needs a certificate: pass ssl= an ssl.SSLContext with one")
    if isinstance(ssl, SSLContext):
        if ssl.protocol == ssl_module.PROTOCOL_TLS_CLIENT:
            raise UsageError(
                "ssl= is a context for clients: a server needs one for ssl.Purpose.CLIENT_AUTH"
            )
        return ssl
    if ssl:
        raise UsageError(f"ssl= must be an ssl.SSLContext or None, not {ssl!r}")
    return None


def check_alpn(chosen: str | None, protocol: str) -> None:
    """Raise `ProtocolError` if the server has chosen another protocol by ALPN.

    Where the wire has none, the name is an agreement of the two ends, and any will do.
    """
    if protocol and chosen not in (None, protocol):
        raise ProtocolError(f"the server speaks {chosen!r} (by ALPN), not {protocol!r}")


def explain(exc: BaseException, protocol: str) -> None:
    """Add a hint to the error of a client's failed TLS handshake."""
    if not isinstance(exc, ssl_module.SSLError):
        if isinstance(exc, ConnectionError):
            exc.add_note("the server hung up in the TLS handshake: does it speak TLS on this port?")
        return
    reason = _reason(exc)
    if "NO_APPLICATION_PROTOCOL" in reason:
        exc.add_note(
            f"the server refused ALPN protocol {protocol!r}: it speaks another protocol on this"
            " port"
        )
    elif "WRONG_VERSION_NUMBER" in reason:
        exc.add_note("the server does not speak TLS on this port: leave ssl= out")


def explain_greeting(exc: BaseException | None) -> str:
    """Return the likely cause of a failed handshake, for a listener's log; "" if unknown."""
    if isinstance(exc, ssl_module.SSLError):
        reason = _reason(exc)
        if "HTTP" in reason:
            return ": the client speaks HTTP without TLS"
        if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
            return ": the client speaks no TLS (does it connect without ssl=?)"
    return ""


def _reason(exc: ssl_module.SSLError) -> str:
    return exc.reason or str(exc).upper().replace(" ", "_")  # Python knows no alert above 112
