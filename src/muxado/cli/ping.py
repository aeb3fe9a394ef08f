"""`muxado ping`: whether a muxado peer is at an address, and what is there if it is none."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import muxado.sync

from ..config import Config
from ..core import CoreSession
from ..endpoint import alpn_of
from ..errors import MuxadoError, ProtocolError, SessionError
from ..wire.foreign import recognise

# How long a port that has not answered a ping is listened to, and asked in other protocols.
PROBE_TIMEOUT = 2.0  # seconds
MOST_GREETING = 512  # bytes


@dataclass(frozen=True)
class Target:
    """What to ping.

    Attributes:
        host: a name or an address.
        port: its TCP port.
        context: for TLS, None without.
        server_hostname: the name that the certificate must have, None for `host`.
        timeout: seconds for the connection, and for each answer.
    """

    host: str
    port: int
    context: ssl.SSLContext | None
    server_hostname: str | None
    timeout: float

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of "HOST:PORT" or "[ADDRESS]:PORT".

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes into brackets, as in [::1]:4000: {text!r}")
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not colon or not host or not 0 < number < 65536:
        raise ValueError(f"it takes HOST:PORT, not {text!r}")
    return host, number


def tls_context(ca: str | None, cert: str | None) -> ssl.SSLContext:
    """Return a context to dial with.

    Args:
        ca: the file of the authorities to trust, None for the system's.
        cert: the file of the client's certificate and key, None if it has none.

    Raises:
        OSError: a file can't be read, or has something else in it.
    """
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols([alpn_of(None)])
    if cert is not None:
        context.load_cert_chain(cert)
    return context


def pinned_context(pins: tuple[str, ...]) -> ssl.SSLContext:
    """Return a context to dial a server with that is known by its key.

    Args:
        pins: what the key may be.

    Raises:
        UsageError: one is no pin.
        ImportError: the extra `tunnel` is not installed.
    """
    from ..tunnel.invitations import check_pin
    from ..tunnel.pins import client_context

    return client_context([check_pin(pin) for pin in pins])


def run(target: Target, count: int, interval: float, say: Callable[[str], object]) -> int:
    """Ping a target; return the exit status.

    Args:
        target: its place, and its TLS.
        count: how often.
        interval: seconds between two pings.
        say: is given each line of the answer.

    Returns:
        0 if a muxado peer answered, 1 if something else is there or the peer stopped to answer,
        2 if there is no connection.
    """
    # The pings are this command's own; another kind of peer would be given up early.
    config = Config(ping_interval=None)
    try:
        session = muxado.sync.connect(
            target.host,
            target.port,
            ssl=target.context,
            server_hostname=target.server_hostname,
            timeout=target.timeout,
            config=config,
            name="muxado ping",
        )
    except ProtocolError as exc:
        say(f"no muxado at {target}: {_told(exc)}")
        return 1
    except (OSError, MuxadoError) as exc:
        say(f"no connection with {target}: {_told(exc)}")
        return 2
    times: list[float] = []
    try:
        failure = _ping(session, target, count, interval, times, say)
    finally:
        if times:
            session.close()
        else:
            session.abort()
        session.wait_closed()
    if failure is not None:
        if times:
            say(f"{target} answers no more: {_told(failure)}")
        else:
            say(f"no muxado at {target}: {_what_it_is(target, failure)}")
        return 1
    if len(times) > 1:
        ordered = sorted(1000 * each for each in times)
        middle = ordered[len(ordered) // 2]
        say(
            f"{len(times)} pings: {ordered[0]:.3f} ms the shortest, {middle:.3f} the median,"
            f" {ordered[-1]:.3f} the longest"
        )
    return 0


def _ping(
    session: muxado.sync.Session,
    target: Target,
    count: int,
    interval: float,
    times: list[float],
    say: Callable[[str], object],
) -> Exception | None:
    """Send the pings, and add their times; return what ended it early."""
    for number in range(count):
        if number:
            time.sleep(interval)
        try:
            times.append(session.ping(timeout=target.timeout))
        except (TimeoutError, MuxadoError) as exc:
            return exc
        if number == 0:
            if _echoes(target):
                times.clear()
                return ProtocolError("the peer sends back whatever it is sent")
            tls = "" if target.context is None else f" over {_tls_version(session)}"
            say(f"muxado at {target} ({session.remote_address[0]}){tls}")
        say(f"round trip {1000 * times[-1]:.3f} ms")
    return None


def _tls_version(session: muxado.sync.Session) -> str:
    secured = session.get_extra_info("ssl_object")
    return secured.version() or "TLS"


def _told(exc: BaseException) -> str:
    """Return an error's text, with its notes."""
    return "; ".join([str(exc) or type(exc).__name__, *getattr(exc, "__notes__", ())])


def _what_it_is(target: Target, exc: Exception) -> str:
    """Return what is known of a port that has not answered a ping."""
    if not isinstance(exc, SessionError):
        told = f"nothing came within {target.timeout:g} s"
    elif isinstance(exc, ProtocolError) and not str(exc).startswith("the peer broke"):
        return str(exc)  # it is known by what it said
    else:
        told = str(exc)
    if target.context is not None:
        return told
    return _probe(target) or told


def _probe(target: Target) -> str:
    """Ask a port in other protocols; return what it is, "" if that stays unknown."""
    for probe in (_speaks_tls, _speaks_first, _speaks_http):
        with contextlib.suppress(OSError), _reach(target) as sock:
            found = probe(sock)
            if found:
                return found
    return ""


def _echoes(target: Target) -> bool:
    """Return whether a port sends a session's first bytes back, which would pass for answers."""
    core = CoreSession(client=True, config=Config(ping_interval=None), now=0.0)
    core.liveness.ping()
    sent = core.data_to_send(0.0, MOST_GREETING)
    came = b""
    with contextlib.suppress(OSError), _reach(target) as plain:
        sock = plain
        if target.context is not None:
            name = target.server_hostname or target.host
            sock = target.context.wrap_socket(plain, server_hostname=name)
        with sock:
            sock.sendall(sent)
            while len(came) < len(sent) and (data := sock.recv(len(sent) - len(came))):
                came += data
    return came == sent


def _reach(target: Target) -> socket.socket:
    timeout = min(target.timeout, PROBE_TIMEOUT)
    return socket.create_connection((target.host, target.port), timeout=timeout)


def _speaks_first(sock: socket.socket) -> str:
    return _describe(sock.recv(MOST_GREETING))


def _speaks_tls(sock: socket.socket) -> str:
    # Whether it speaks TLS at all: whose certificate it has does not matter here.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(sock) as secured:
            return f"the peer speaks {secured.version()}: try --tls, or --pin for a tunnel's server"
    except ssl.SSLError as exc:
        if exc.reason and "ALERT" in exc.reason:
            return "the peer speaks TLS: try --tls, or --pin for a tunnel's server"
        return ""


def _speaks_http(sock: socket.socket) -> str:
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return _describe(sock.recv(MOST_GREETING))


def _describe(said: bytes) -> str:
    """Return what a peer speaks that has said this."""
    if not said:
        return ""
    known = recognise(said)
    if known:
        return known
    line = said.split(b"\n")[0].decode("ascii", "backslashreplace").strip()
    return f"the peer says {line[:60]!r}"
