"""What is said in lines of JSON: the header of a data stream, and a control stream's messages.

A data stream begins with a header, one line. Between a server and its own client the stream's
bytes follow at once. Between two servers one byte answers first, the `Verdict`.

A control stream is the first stream of a session, and has a line for each message, either way:
``{"type": "hello", "version": "1.0", ...}``. What a reader does not know it passes over: another
minor version may say more. Another major version is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any, Final

from .errors import HeaderError

__all__ = [
    "HEADER_LIMIT",
    "MESSAGE_LIMIT",
    "VERSION",
    "Header",
    "Message",
    "Verdict",
    "check_version",
]

VERSION: Final = "1.0"

HEADER_LIMIT: Final = 4096
"""Bytes of a header, with its end of line."""

MESSAGE_LIMIT: Final = 16 * 1024
"""Bytes of a message, with its end of line."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Verdict(IntEnum):
    """The byte with which a server answers a header that another server has sent.

    Attributes:
        HERE: the session is here, and has the stream now: nothing is to be tried again.
        NOT_HERE: the session is not here: the route that led here is wrong.
        UNKNOWN: the session is here, and has no such service.
        REFUSED: the session is here, and the caller may not have this stream.
    """

    HERE = ord("h")
    NOT_HERE = ord("n")
    UNKNOWN = ord("u")
    REFUSED = ord("r")


@dataclass(frozen=True, slots=True)
class Header:
    """How a data stream begins.

    Attributes:
        service: what is asked for.
        name: whose service it is, where the reader can't know it otherwise.
        hop: how many servers have passed it on; one may.
        remaining: seconds that the caller still waits, None for any number.
        origin: the caller's address as the server saw it where the caller is connected.
        identity: who the caller is, as that server knows it.

    `origin` and `identity` are believed from peers only.
    """

    service: str
    name: str = ""
    hop: int = 0
    remaining: float | None = None
    origin: str = ""
    identity: str = ""

    def pack(self) -> bytes:
        """Return the line.

        Raises:
            HeaderError: it would be longer than `HEADER_LIMIT`.
        """
        fields: dict[str, object] = {"service": self.service}
        for key, value in (
            ("name", self.name),
            ("hop", self.hop),
            ("from", self.origin),
            ("as", self.identity),
        ):
            if value:
                fields[key] = value
        if self.remaining is not None:
            fields["remaining"] = round(self.remaining, 3)
        return _pack(fields, HEADER_LIMIT)

    @classmethod
    def unpack(cls, line: bytes) -> Header:
        r"""Return what a line says, with or without its end of line.

        Raises:
            HeaderError: it is no header.
        """
        fields = _unpack(line, HEADER_LIMIT)
        texts = [fields.get(key, "") for key in ("service", "name", "from", "as")]
        hop = fields.get("hop", 0)
        remaining = fields.get("remaining")
        if not all(isinstance(text, str) for text in texts) or "service" not in fields:
            raise HeaderError("a header's service, name, from and as must be strings")
        if type(hop) is not int or not 0 <= hop <= 255:
            raise HeaderError(f"a header's hop must be a small number, not {hop!r:.40}")
        if remaining is not None and not _is_seconds(remaining):
            raise HeaderError(f"a header's remaining must be seconds, not {remaining!r:.40}")
        service, name, origin, identity = texts
        return cls(service, name, hop, remaining, origin, identity)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a control stream.

    Attributes:
        type: ``hello``, ``ok``, ``drain``, ``replaced``, ``error``, or what later versions say.
        fields: everything else that it says.
    """

    type: str
    fields: dict[str, Any]

    def pack(self) -> bytes:
        """Return the line.

        Raises:
            HeaderError: it would be longer than `MESSAGE_LIMIT`.
        """
        return _pack({"type": self.type} | self.fields, MESSAGE_LIMIT)

    @classmethod
    def unpack(cls, line: bytes) -> Message:
        """Return what a line says, with or without its end of line.

        Raises:
            HeaderError: it is no message.
        """
        fields = _unpack(line, MESSAGE_LIMIT)
        kind = fields.pop("type", None)
        if not isinstance(kind, str):
            raise HeaderError("a message's type must be a string")
        return cls(kind, fields)

    def text(self, key: str) -> str:
        """Return a field that is a string, "" if it is missing.

        Raises:
            HeaderError: it is no string.
        """
        value = self.fields.get(key, "")
        if not isinstance(value, str):
            raise HeaderError(f"{self.type}'s {key} must be a string")
        return value


def check_version(message: Message) -> None:
    """Check that a hello's version is one that can be talked to: of the same major number.

    Raises:
        HeaderError: it is none.
    """
    version = message.text("version")
    if version.partition(".")[0] != VERSION.partition(".")[0]:
        raise HeaderError(f"this side speaks version {VERSION}, the other {version!r:.20}")


def _pack(fields: dict[str, object], limit: int) -> bytes:
    line = _encode(fields).encode() + b"\n"
    if len(line) > limit:
        raise HeaderError(f"a line of {len(line)} bytes: {limit} at most")
    return line


def _unpack(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        raise HeaderError(f"a line of {len(line)} bytes: {limit} at most")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise HeaderError(f"no line of JSON with an object: {line!r:.60}")
    return fields


def _is_seconds(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(float(value)) and value >= 0
    except OverflowError:
        return False
