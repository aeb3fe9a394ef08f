"""The little request protocol that every contender speaks; README.md describes it.

`gopeers/protocol.go` is the same in Go.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import Final, NamedTuple

ECHO: Final = 1
PING: Final = 2
UP: Final = 3
DOWN: Final = 4
BOTH: Final = 5
REPORT: Final = 6
CLOCK: Final = 7

DIRECTIONS: Final = {"up": UP, "down": DOWN, "both": BOTH}

_HEADER: Final = struct.Struct(">B3xIQQ")
HEADER_SIZE: Final = _HEADER.size
READ_SIZE: Final = 64 * 1024
PING_SIZE: Final = 64
# Of every bulk stream, so much is compared byte for byte; and so much of each later chunk.
CHECKED_SIZE: Final = 256 * 1024
SAMPLE_SIZE: Final = 16

BLOCK: Final = b"".join(hashlib.sha256(struct.pack(">I", i)).digest() for i in range(2048))
BLOCK_SIZE: Final = len(BLOCK)
# Long enough to compare any chunk of up to 256 KiB, wherever it begins.
PATTERN: Final = BLOCK * 5


class Header(NamedTuple):
    """The first bytes of a stream: what to do.

    Attributes:
        op: the work.
        size: bytes of the payload, with the header (ECHO only).
        start: the measured time's start in Unix nanoseconds (bulk only).
        end: its end.
    """

    op: int
    size: int = 0
    start: int = 0
    end: int = 0

    def pack(self) -> bytes:
        """Return the header's bytes."""
        return _HEADER.pack(*self)


def unpack_header(data: bytes | memoryview) -> Header:
    """Return the header that `data` begins with."""
    return Header(*_HEADER.unpack_from(data))


def echo_data(size: int, number: int) -> bytes:
    """Return a request of `size` bytes that no other number has."""
    head = Header(ECHO, size).pack()
    return head + PATTERN[HEADER_SIZE : size - 8] + struct.pack(">Q", number)


class Checker:
    """Counts what a bulk stream brings, and checks that each chunk belongs where it comes.

    Attributes:
        received: bytes so far.
        window: those that came within the measured time.
        wrong: chunks that were not what they should be.
    """

    __slots__ = ("_end", "_start", "received", "window", "wrong")

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self._end = end
        self.received = 0
        self.window = 0
        self.wrong = 0

    def add(self, chunk: bytes | memoryview) -> None:
        """Take note of the stream's next bytes, at most 256 KiB of them."""
        now = time.time_ns()
        size = len(chunk)
        if self._start <= now < self._end:
            self.window += size
        at = self.received % BLOCK_SIZE
        looked = size if self.received < CHECKED_SIZE else min(size, SAMPLE_SIZE)
        if bytes(chunk[:looked]) != PATTERN[at : at + looked]:
            self.wrong += 1
        self.received += size
