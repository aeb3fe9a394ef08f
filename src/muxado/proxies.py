"""Proxies that a dial goes through: which one, and what is said to it, without I/O.

How it works. A `ProxyHandshake` is asked for its next step: bytes to send, or how many bytes to
receive at most. Each front end takes these steps on a socket that is connected to the proxy, or in
TLS over it, and the same socket is connected to the target then. No more bytes are asked for than
the proxy's answers have, since the target's own may follow them at once.

HTTP's CONNECT is spoken here, because `python-socks` takes what comes in one read for the whole
answer and drops what follows it. SOCKS5 is spoken by that library, whose part for one connection
is a coroutine that awaits nothing but a stream's two methods: `_Wire` makes steps of them.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from ssl import SSLContext, create_default_context
from types import coroutine
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import UsageError
from .extras import needs

__all__ = ["Proxy", "ProxyHandshake", "ProxyRefused", "choose_proxy"]

# What is spoken with a proxy, and its port if its URL names none, by the URL's scheme.
SCHEMES = {
    "http": ("http", 80),
    "https": ("http", 443),
    "socks5": ("socks5", 1080),
    "socks5h": ("socks5", 1080),
}
MOST_ANSWERED = 16 * 1024  # bytes of an HTTP proxy's answer


class ProxyRefused(ConnectionError):
    """A proxy has not made the connection that it was asked for.

    Attributes:
        status: the HTTP status it answered with, 0 if it speaks SOCKS, or no HTTP. A `Dialer`
            takes 403 and 407 for final.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status: int = status


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, as its URL names it.

    Attributes:
        scheme: "http" or "socks5".
        host: its name or address.
        port: its TCP port.
        user: the name to log in with, "" for none.
        password: what goes with it.
        context: for TLS with the proxy itself; None if it is reached without.
    """

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    context: SSLContext | None = None

    def __str__(self) -> str:
        return f"the proxy at {self.host}:{self.port}"

    def explain(self, exc: BaseException) -> None:
        """Say in the error of a TLS handshake that it was the one with the proxy."""
        exc.add_note(f"this was the TLS handshake with {self}")


def choose_proxy(proxy: object, host: str, port: int) -> Proxy | None:
    """Return the proxy that a dial to a host and port goes through, None if it goes through none.

    Args:
        proxy: as for `connect`: a URL, "env", or None.
        host: the host to dial.
        port: its port.

    Raises:
        UsageError: there can't be such a proxy. The error does not repeat the URL, which may hold
            a password.
        ImportError: it needs a library that is missing.
    """
    if proxy is None:
        return None
    if not isinstance(proxy, str):
        raise UsageError(f"proxy= must be a URL, 'env' or None, not a {type(proxy).__name__}")
    if proxy != "env":
        return _parse(proxy, "proxy=")
    from urllib.request import getproxies_environment  # with it come http and email

    proxies = getproxies_environment()
    url = proxies.get("https") or proxies.get("all")
    if not url or _bypassed(host.lower(), port, proxies.get("no", "")):
        return None
    return _parse(url if "://" in url else f"http://{url}", "the environment's proxy")


def _bypassed(host: str, port: int, bypass: str) -> bool:
    """Return whether NO_PROXY names the host: itself, a domain it is in, or a network."""
    for each in bypass.lower().replace(",", " ").split():
        name = each.removesuffix(f":{port}").strip("[]").lstrip(".")
        if each == "*" or host == name or host.endswith(f".{name}"):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
    return False


def _parse(url: str, what: str) -> Proxy:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{what} is no URL, such as 'http://host:3128'") from None
    if parts.scheme not in SCHEMES:
        raise UsageError(f"{what} must begin with http://, https://, socks5:// or socks5h://")
    scheme, default = SCHEMES[parts.scheme]
    if not host or port == 0:
        raise UsageError(f"{what} names no host and port, as 'http://host:3128' does")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme == "socks5":
        _connector("", "")  # is the library there?
        for each in (user, password):
            if not each.isascii() or len(each) > 255:
                raise UsageError(f"{what}: SOCKS5 takes names and passwords of ASCII, up to 255")
    elif ":" in user or not (user + password).isprintable():
        raise UsageError(f"{what}: HTTP can't carry such a name and password")
    # It offers no ALPN: what an HTTP proxy speaks without is HTTP/1.1.
    context = create_default_context() if parts.scheme == "https" else None
    return Proxy(scheme, host, port or default, user, password, context)


class ProxyHandshake:
    """Asks a proxy for a connection to a host and port, in steps."""

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        self._proxy = proxy
        speak = _http_connect if proxy.scheme == "http" else _socks5
        self._work: Coroutine[bytes | int, bytes | None, None] = speak(
            proxy, host.encode("idna").decode(), port
        )

    def step(self, received: bytes | bytearray | None = None) -> bytes | int | None:
        """Return what to do next.

        Args:
            received: what was received, b"" if the proxy has hung up; None if the last step was
                another one.

        Returns:
            bytes to send, or how many bytes to receive at most, or None: the proxy has connected.

        Raises:
            ProxyRefused: it has not.
        """
        try:
            return self._work.send(None if received is None else bytes(received))
        except StopIteration:
            return None
        except ProxyRefused:
            raise
        except Exception as exc:  # python-socks has several, not all of them on purpose
            raise ProxyRefused(f"{self._proxy} refused: {exc}") from exc


class _Wire:
    """A stream whose methods are steps of a handshake."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    @coroutine
    def write(self, data: bytes) -> Generator[bytes, None, None]:
        yield bytes(data)

    @coroutine
    def read_exactly(self, n: int) -> Generator[int, bytes, bytes]:
        data = b""
        while len(data) < n:
            piece = yield n - len(data)
            if not piece:
                raise ProxyRefused(f"{self._proxy} hung up in its handshake")
            data += piece
        return data

    write_all = write  # the names that python-socks 2 has for them
    read_exact = read_exactly


def _connector(user: str, password: str) -> Any:
    with needs("proxy"):
        from python_socks._connectors.socks5_async import Socks5AsyncConnector
    resolver: Any = None  # the proxy looks names up
    return Socks5AsyncConnector(user, password, True, resolver)


async def _socks5(proxy: Proxy, host: str, port: int) -> None:
    await _connector(proxy.user, proxy.password).connect(_Wire(proxy), host, port)


async def _http_connect(proxy: Proxy, host: str, port: int) -> None:
    wire = _Wire(proxy)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.user or proxy.password:
        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {secret}")
    await wire.write("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        missing = next(n for n in (1, 2, 3, 4) if answer.endswith(b"\r\n\r\n"[: 4 - n]))
        answer += await wire.read_exactly(missing)
        if len(answer) > MOST_ANSWERED:
            raise ProxyRefused(f"{proxy} answered with more than {MOST_ANSWERED} bytes")
    status_line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    version, _, status = status_line.partition(" ")
    code = status[:3]
    if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
        raise ProxyRefused(f"{proxy} answered with something else than HTTP: {status_line[:80]!r}")
    if not 200 <= int(code) <= 299:
        raise ProxyRefused(
            f"{proxy} refused the connection to {place}: {status_line[:80]!r}", int(code)
        )
