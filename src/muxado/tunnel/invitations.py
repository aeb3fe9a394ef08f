"""Invitations, the secrets in them, and the addresses of servers.

An invitation is ``muxado://TOKEN@HOST:PORT,HOST:PORT#sha256-PIN,sha256-PIN``; where the server is
reached by WebSockets, ``wss://TOKEN@HOST:PORT/PATH#sha256-PIN``. The token is good for one use.
Without a pin, the server's certificate must be one of a public authority.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from hashlib import sha256

from ..errors import UsageError

__all__ = ["DEFAULT_PORT", "Invitation", "check_pin", "hash_secret", "new_secret", "parse_place"]

DEFAULT_PORT = 7443
PORTS = {"muxado": DEFAULT_PORT, "wss": 443}  # by scheme
PATH = re.compile(r"[!-~]*")
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
PIN = re.compile(r"sha256-[A-Za-z0-9_-]{43}")

Place = tuple[str, int]


def new_secret() -> str:
    """Return a new token or key: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return what is kept of a token or a key by who only has to know it again."""
    return urlsafe_b64encode(sha256(secret.encode()).digest()).rstrip(b"=").decode()


def check_pin(text: str) -> str:
    """Return a pin that somebody has typed.

    Raises:
        UsageError: it is none.
    """
    if PIN.fullmatch(text) is None:
        raise UsageError(f"a pin is sha256- and 43 characters more, not {text!r:.80}")
    return text


def parse_place(text: str, port: int | None = None) -> Place:
    """Return host and port of ``HOST:PORT``; an IPv6 address stands in brackets.

    Args:
        text: what to parse.
        port: the port if the text names none. None: it must.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s@/#,]+)(?::([0-9]{1,5}))?", text)
    number = 0 if match is None else int(match[2]) if match[2] else (port or 0)
    if match is None or not 0 < number < 65536:
        raise UsageError(f"it takes HOST:PORT, not {text!r:.80}")
    return match[1].strip("[]"), number


def format_place(place: Place) -> str:
    """Return ``HOST:PORT``."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, repr=False)
class Invitation:
    """Where a server is, by what it is known, and a token for its first use.

    Its `repr` does not show the token.

    Attributes:
        token: the token, "" if there is none.
        places: pairs of host and port, tried in turn.
        pins: what the server's public key may be; () if its certificate must verify.
        path: for WebSockets, the URL's path, from "/" on; "" for a session over TLS alone.
    """

    token: str
    places: tuple[Place, ...]
    pins: tuple[str, ...] = ()
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Return the invitation that a text is.

        Raises:
            UsageError: it is none; the message does not show the token.
        """
        scheme, _, rest = text.strip().partition("://")
        if scheme not in PORTS:
            raise UsageError(
                "an invitation begins with muxado:// or wss://, as `muxado invite` prints it"
            )
        rest, _, pins = rest.partition("#")
        token, _, rest = rest.rpartition("@")
        places, slash, path = rest.partition("/")
        if token and SECRET.fullmatch(token) is None:
            raise UsageError("the token of the invitation is not whole: copy all of the line")
        found = tuple(pins.split(",")) if pins else ()
        if not all(PIN.fullmatch(pin) for pin in found):
            raise UsageError("the pin of the invitation is not whole: copy all of the line")
        if (slash and scheme != "wss") or PATH.fullmatch(path) is None:
            raise UsageError(f"the invitation's path can't be: {'/' + path!r:.80}")
        servers = tuple(parse_place(each, PORTS[scheme]) for each in places.split(","))
        return cls(token, servers, found, f"/{path}" if scheme == "wss" else "")

    @property
    def scheme(self) -> str:
        """``muxado``, or ``wss`` where the server is reached by WebSockets."""
        return "wss" if self.path else "muxado"

    def spent(self) -> Invitation:
        """Return it without its token."""
        return replace(self, token="")

    def __str__(self) -> str:
        token = f"{self.token}@" if self.token else ""
        pins = f"#{','.join(self.pins)}" if self.pins else ""
        places = ",".join(map(format_place, self.places))
        return f"{self.scheme}://{token}{places}{self.path}{pins}"

    def __repr__(self) -> str:
        return f"<Invitation to {','.join(map(format_place, self.places))}>"
