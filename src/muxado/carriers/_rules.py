"""What holds for every WebSocket that carries a session, whichever library speaks it.

A session's bytes go in binary messages of at most `MESSAGE_SIZE`; where a message ends means
nothing. Text is an error. Codes 1000 and 1001, or none, end the peer's output as a closed
connection does; any other code is a lost connection. There are no WebSocket pings, since sessions
have their own, and no compression: the streams' data is compressed already or not worth it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config import AUTO, Config
from ..errors import UsageError
from ..wire import FORMATS

MESSAGE_SIZE = 64 * 1024  # bytes that are sent in one message at most
RECEIVED_SIZE = 1024 * 1024  # bytes that are taken in one message at most

NORMAL = 1000
UNSUPPORTED = 1003
INTERNAL_ERROR = 1011
ORDERLY_CODES = frozenset((1000, 1001, 1005))  # 1005: the close frame has no code

TEXT_RECEIVED = "the peer sent a WebSocket text message: muxado's are binary"


def check_origins(origins: object) -> tuple[str, ...]:
    """Return the origins that may connect.

    Raises:
        UsageError: they are no strings.
    """
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        raise UsageError(f"origins= must be a list of strings, not {origins!r}")
    found = tuple(origins)
    if not all(isinstance(each, str) for each in found):
        raise UsageError(f"origins= must be a list of strings, not {origins!r}")
    return found


def allows(origins: Sequence[str], origin: str | None) -> bool:
    """Return whether a handshake with such an `Origin` header is taken.

    Only browsers send one, for whichever page it was that asked them to connect.
    """
    return origin is None or origin in origins


def subprotocols(config: Config | None) -> tuple[str, ...]:
    """Return the subprotocols that stand for a session's wire.

    There are several where a server leaves the wire to its clients.
    """
    wire = Config().wire if config is None else config.wire
    return tuple(name.replace("-", ".") for name in (FORMATS if wire == AUTO else [wire]))


def wire_of(subprotocol: object) -> str | None:
    """Return the wire that a chosen subprotocol stands for, None if it is none's."""
    return next((wire for wire in FORMATS if wire.replace("-", ".") == subprotocol), None)


def choose(offered: Iterable[str], known: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether a client is taken that offers these subprotocols, and which one is chosen.

    One that offers none is taken.
    """
    offers = [each.strip() for each in offered if each.strip()]
    chosen = next((each for each in offers if each in known), None)
    return chosen is not None or not offers, chosen


def pieces(data: bytes) -> Iterable[bytes]:
    """Yield what is to be sent as messages of their own."""
    if len(data) <= MESSAGE_SIZE:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), MESSAGE_SIZE):
        yield bytes(view[start : start + MESSAGE_SIZE])
