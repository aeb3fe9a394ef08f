"""The seam between the session and a wire format.

A format is a `WireFormat`: a table of `Rules`, an `Encoder` that packs frames, and a
`Decoder` that cuts incoming bytes into frames. The session speaks in data, resets, credits
and go-aways, and never asks which format it has.

How a decoder is driven::

    decoder.space()        where the next bytes of the transport should be put
    decoder.filled(n)      that many have been put there
    decoder.next()         the kind of the next frame, its fields in the decoder's
                           attributes; NEED_MORE when none is complete
    decoder.take()         after DATA: what has come of the frame's body, until
                           `decoder.body` (the bytes still missing) is 0
    decoder.skip()         after DATA: throw the rest of the body away unstored

A DATA frame is announced by its header, so that its length can be judged before any of its
body is taken in; every other frame is announced when it is complete. The fields live in the
decoder, not in an object per frame: frames are the hot path.

One frame may be announced as several: what opens a stream is always announced as DATA with
`syn`, what ends a direction as DATA with `fin`, both perhaps without payload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import UsageError
from .rules import Rules

NEED_MORE: Final = 0
DATA: Final = 1
RESET: Final = 2
CREDIT: Final = 3
GO_AWAY: Final = 4
BAD_FRAME: Final = 5
ACCEPTED: Final = 6  # the peer's application has taken a stream that this side opened
PING: Final = 7  # a ping to answer with the same value
PONG: Final = 8
WINDOW: Final = 9  # credit as a total, not as an increment

# What one read of the transport may bring: little at first, twice as much each time that a read has
# filled it, and room for no more than pings in a session that is idle, since many are.
FIRST_READ_SIZE: Final = 16 * 1024
READ_SIZE: Final = 256 * 1024
IDLE_READ_SIZE: Final = 1024


class Encoder:
    """Packs frames. Each method returns the bytes that go on the wire.

    Raises:
        UsageError: from every method, for a value that the format can't carry.
    """

    __slots__ = ()

    def data_header(self, stream_id: int, length: int, syn: bool, fin: bool) -> bytes:
        """Pack the header of a DATA frame whose `length` bytes of payload follow it.

        `syn` only where a stream is not opened by a frame of its own, `fin` with a payload only
        where an end may ride on data (`Rules.opens_apart`, `Rules.fin_rides`).
        """
        raise NotImplementedError

    def open(self, stream_id: int, stream_type: int, priority: int) -> bytes:
        """Pack the frame of its own that opens a stream, where the format has one."""
        raise NotImplementedError

    def accept(self, stream_id: int) -> bytes:
        """Pack the acknowledgement of a stream that the peer opened, where there is one."""
        raise NotImplementedError

    def reset(self, stream_id: int, code: int) -> bytes:
        """Pack a frame that ends both directions of a stream."""
        raise NotImplementedError

    def credit(self, stream_id: int, increment: int) -> bytes:
        """Pack a frame that lets the peer send `increment` bytes more on a stream."""
        raise NotImplementedError

    def window(self, stream_id: int, consumed: int, window: int) -> bytes:
        """Pack a stream's credit as a total: `window` bytes beyond the `consumed` first ones."""
        raise NotImplementedError

    def go_away(self, last_id: int, code: int, debug: bytes, final: bool) -> bytes:
        """Pack a GOAWAY. `final` says that the transport's end follows at once."""
        raise NotImplementedError

    def cut(self) -> bytes:
        """Pack the beginning of a frame: after it the transport's end is not an ordinary one.

        For formats that have no GOAWAY, nor any other word for an error.
        """
        raise NotImplementedError

    def ping(self) -> bytes:
        """Pack what makes any peer answer, or what keeps a peer alive that answers nothing."""
        raise NotImplementedError

    def pong(self, value: int) -> bytes:
        """Pack the answer to a ping that carries a value."""
        raise NotImplementedError


class Decoder:
    """Cuts a byte stream into frames; the base of each format's own.

    Attributes:
        stream_id: the stream of the frame just announced.
        length: the payload's length of a DATA frame.
        syn: whether a DATA frame opens its stream.
        fin: whether a DATA frame ends its sender's direction.
        body: how many bytes of the current DATA frame's payload are still to be taken.
        code: the error code of RESET, GO_AWAY and BAD_FRAME, in this library's numbers.
        value: the increment of CREDIT, the last stream id of GO_AWAY, what PING carries, and how
            many bytes a peer has consumed that says WINDOW.
        window: how many bytes beyond those it lets in.
        type: the type of a stream that is opened, if the format's frames carry one.
        priority: the same for its priority, the larger the sooner.
        text: the debug text of GO_AWAY, the reason of BAD_FRAME.
        stepped_over: True once a legal frame was passed over unannounced.
        on_growth: called when the buffer has grown, None for nothing; `shrink` undoes it.
    """

    __slots__ = (
        "_end",
        "_input",
        "_skip",
        "_start",
        "_view",
        "body",
        "code",
        "fin",
        "length",
        "on_growth",
        "priority",
        "stepped_over",
        "stream_id",
        "syn",
        "text",
        "type",
        "value",
        "window",
    )

    def __init__(self) -> None:
        self._input = bytearray(FIRST_READ_SIZE)
        self._view = memoryview(self._input)
        self._start = 0
        self._end = 0
        self._skip = 0
        self.stepped_over: bool = False
        self.on_growth: Callable[[], None] | None = None
        self.stream_id: int = 0
        self.length: int = 0
        self.syn: bool = False
        self.fin: bool = False
        self.body: int = 0
        self.code: int = 0
        self.value: int = 0
        self.window: int = 0
        self.type: int = 0
        self.priority: int = 0
        self.text: bytes = b""

    def space(self) -> memoryview:
        """Return where the transport's next bytes should be put; never empty.

        Everything complete must have been parsed first, so that what is left is short.
        """
        if self._start == self._end:
            if self._end == len(self._input):
                self.make_room(2 * self._end or 1)  # 0 if it was given back whole
            self._start = self._end = 0
            return self._view
        if self._start:
            waiting = self._input[self._start : self._end]
            if self._end == IDLE_READ_SIZE == len(self._input):
                self._grow(FIRST_READ_SIZE)
            self._start = 0
            self._end = len(waiting)
            self._input[: self._end] = waiting
        return self._view[self._end :]

    def find_room(self, however_much: bool = False) -> bool:
        """Have `space()` hold something although what has come can't be parsed yet.

        Returns False if as much is waiting as one read may bring, unless it may be more.
        """
        if self._start == 0 and self._end == len(self._input):
            if self._end >= READ_SIZE and not however_much:
                return False
            waiting = self._input
            self._grow(max(READ_SIZE, 2 * self._end))
            self._input[: self._end] = waiting
        return True

    def make_room(self, size: int) -> None:
        """Have `space()` hold `size` bytes, or as many as one read may bring; when it is empty."""
        if self._start == self._end and min(size, READ_SIZE) > len(self._input):
            self._grow(min(max(size, FIRST_READ_SIZE), READ_SIZE))
            self._start = self._end = 0

    def _grow(self, size: int) -> None:
        self._input = bytearray(size)
        self._view = memoryview(self._input)
        if self.on_growth is not None:
            self.on_growth()

    def filled(self, count: int) -> None:
        """Note that `count` bytes have been put into `space()`."""
        self._end += count

    def take_rest(self) -> bytes:
        """Return all that has come and is not parsed, and forget it."""
        rest = bytes(self._view[self._start : self._end])
        self.clear()
        return rest

    def clear(self) -> None:
        """Throw everything away that has come."""
        self._start = self._end = 0

    def shrink(self) -> None:
        """Give an idle session's buffer back, unless more waits in it than a small one holds."""
        rest = self._end - self._start
        if len(self._input) <= IDLE_READ_SIZE or rest >= IDLE_READ_SIZE:
            return
        waiting = self._input[self._start : self._end]
        self._input = bytearray(IDLE_READ_SIZE)
        self._input[:rest] = waiting
        self._view = memoryview(self._input)
        self._start = 0
        self._end = rest

    def release(self) -> None:
        """Give the buffer back whole, with all that has come; another one is made if asked for."""
        self._input = bytearray()
        self._view = memoryview(self._input)
        self._start = self._end = 0

    def next(self) -> int:
        """Return the kind of the next frame, or NEED_MORE. See the module's text."""
        raise NotImplementedError

    def take(self) -> bytes:
        """Return what has come of the current DATA frame's body, b"" if nothing has."""
        start = self._start
        count = self._end - start
        if count > self.body:
            count = self.body
        self._start = start + count
        self.body -= count
        return bytes(self._view[start : start + count])

    def skip(self) -> None:
        """Throw the rest of the current DATA frame's body away, as far as it comes."""
        self._skip = self.body
        self.body = 0

    def inside_frame(self) -> bool:
        """Return whether the input ends in the middle of a frame."""
        return self._start != self._end or self._skip > 0 or self.body > 0

    def first_bytes(self) -> bytes:
        """Return up to 64 bytes that have come and are not parsed, for an error message."""
        return bytes(self._view[self._start : min(self._end, self._start + 64)])

    def _skipped(self) -> bool:
        """Drop what has come of the bytes to skip; return whether none are left."""
        count = min(self._skip, self._end - self._start)
        self._start += count
        self._skip -= count
        return self._skip == 0

    def _bad(self, code: int, text: bytes) -> int:
        self.code = code
        self.text = text
        return BAD_FRAME


class WireFormat:
    """A wire format: its rules, its encoder, and how to make a decoder."""

    __slots__ = ("encoder", "new_decoder", "rules")

    def __init__(self, rules: Rules, encoder: Encoder, new_decoder: Callable[[], Decoder]) -> None:
        self.rules: Rules = rules
        self.encoder: Encoder = encoder
        self.new_decoder: Callable[[], Decoder] = new_decoder


def check_field(name: str, value: int, low: int, high: int) -> None:
    """Raise `UsageError` if a number doesn't fit its field."""
    if not low <= value <= high:
        raise UsageError(f"{name} must be from {low} to {high}, not {value}")
