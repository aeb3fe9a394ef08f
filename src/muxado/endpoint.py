"""What dialling and listening take, the same for every front end: the place, and TLS.

TLS verifies by default, offers the ALPN protocol `muxado/2`, and explains refusals.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl as ssl_module
import stat
from ssl import SSLContext

from .errors import ProtocolError, UsageError

ALPN = "muxado/2"

# Connections of a listener that may be in their handshake, or wait to be accepted; further
# ones wait unread, for no longer than a handshake may take.
MOST_PENDING = 256
HANDSHAKE_TIMEOUT = 10.0

NOTSENT_LOWAT = 128 * 1024  # bytes


def check_place(
    host: object | None, port: int | None, path: object | None, sock: object | None
) -> None:
    """Raise `UsageError` unless a place is named in exactly one way."""
    ways = (host is not None or port is not None, path is not None, sock is not None)
    if sum(ways) != 1:
        raise UsageError("give either host and port, or path=, or sock=")
    if host is not None and port is None:
        raise UsageError("host= needs port=")


def check_target(
    host: object | None, port: int | None, path: object | None, sock: object | None
) -> None:
    """Raise `UsageError` unless it is clear where to dial: a port alone is no place to dial."""
    check_place(host, port, path, sock)
    if port is not None and host is None:
        raise UsageError("port= needs host=, such as 'localhost' for this machine")


def free_path(path: str | os.PathLike[str]) -> str:
    """Make way for a listener at a path, as asyncio does, and return the path as a string.

    A Unix socket's file outlives its listener, and would keep the next one from listening.
    What is no socket is left alone.
    """
    name = os.fspath(path)
    if not name.startswith("\0"):  # an abstract name has no file
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(name).st_mode):
                os.remove(name)
    return name


def limit_unsent(sock: socket.socket) -> None:
    """Let the kernel hold little that is unsent: no priority reaches it there any more."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Unix sockets don't have it.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)


def client_context(ssl: SSLContext | bool | None) -> SSLContext | None:
    """Return the context to dial with; a context of the caller's is left as it is."""
    if isinstance(ssl, SSLContext):
        return ssl
    if not ssl:
        return None
    context = ssl_module.create_default_context()
    context.set_alpn_protocols([ALPN])
    return context


def server_context(ssl: SSLContext | bool | None) -> SSLContext | None:
    """Return the context to listen with.

    Raises:
        UsageError: `ssl` is True: a server needs a certificate.
    """
    if ssl is True:
        raise UsageError("a TLS server needs a certificate: pass ssl= an ssl.SSLContext with one")
    return ssl or None


def check_alpn(chosen: str | None) -> None:
    """Raise `ProtocolError` if the server has chosen to speak something else."""
    if chosen not in (None, ALPN):
        raise ProtocolError(f"the server speaks {chosen!r} (by ALPN), not {ALPN!r}")


def explain(exc: ssl_module.SSLError) -> None:
    """Add to a failed handshake's error what it means for a muxado session."""
    reason = exc.reason or str(exc).upper().replace(" ", "_")  # Python knows no alert above 112
    if "NO_APPLICATION_PROTOCOL" in reason:
        exc.add_note(f"the server refused ALPN protocol {ALPN!r}: it speaks something else")
    elif "WRONG_VERSION_NUMBER" in reason:
        exc.add_note("the server does not speak TLS on this port: leave ssl= out")
