"""Holds a peer back whose wire can neither refuse nor reset a stream.

How it works. On most wires what there is no room for is refused, or its stream is reset. smux has
no word for either: an end of the stream would look like the end of what it carries. So there the
frame waits. The receiver judges it again when there may be room, parses nothing meanwhile, and the
front end reads no more of its transport (`CoreSession.wants_input`), until the peer can't send.
Nothing is lost, and what is held is the limit and one read. All streams of the session wait with
it, as they do in Go.

So an application could wait for itself: it reads a stream whose bytes are behind a stream that has
no place in the accept queue. While a reader waits, that queue may therefore be as long as
`Config.max_incoming_streams`. What can never be taken in ends the session: otherwise it would stand
still without a reason to see.
"""

from __future__ import annotations

from math import inf
from typing import Final

from .ledger import Ledger
from .states import DRAINING
from .stream_table import StreamTable
from .window import Window

# Seconds until a frame is judged again that waits for memory which other sessions have.
POOL_PAUSE: Final = 0.05


class Holding:
    """The frame of one session that waits for room, if one does.

    Attributes:
        active: True while a frame waits; the decoder has announced it.
        overdue_at: when the session is given up for it, inf for never (`Config.hold_timeout`).
        retry_at: when it is to be judged again though nothing has happened here, inf for never.
        last: True once the transport has ended: what has come is taken in then, as far as
            `Config.max_incoming_streams` lets it, since the peer can't send it again.
    """

    __slots__ = (
        "_ledger",
        "_length",
        "_table",
        "_window",
        "active",
        "last",
        "overdue_at",
        "retry_at",
    )

    def __init__(self, ledger: Ledger, table: StreamTable) -> None:
        self._ledger = ledger
        self._table = table
        self._window: Window = table.window
        self._length = 0  # of the DATA that waits, 0: a stream waits
        self.active: bool = False
        self.last: bool = False
        self.retry_at: float = inf
        self.overdue_at: float = inf

    def has_room_for_stream(self) -> bool:
        """Return whether one more stream of the peer may be let in; if not, it is held."""
        self._length = 0
        if self.last:
            return self._table.incoming < self._ledger.config.max_incoming_streams
        if self._stream_fits():
            return True
        self._wait()
        return False

    def hold(self, length: int) -> None:
        """Hold DATA for which there is no memory."""
        self._length = length
        self._wait()
        if self._window.pooled:
            self.retry_at = self._ledger.now + POOL_PAUSE

    def release(self) -> None:
        """Let the frame wait no more: it is judged again."""
        self.active = False
        self._window.end_wait()
        self.retry_at = inf

    def admitted(self) -> None:
        """Take note that the frame is in: the application has taken something."""
        self.overdue_at = inf

    def _wait(self) -> None:
        self.active = True
        if self.overdue_at == inf:
            ledger = self._ledger
            self.overdue_at = ledger.now + (ledger.config.hold_timeout or inf)

    def end(self) -> None:
        """Take note that the transport has ended: nothing is held any more."""
        self.last = True

    def over(self) -> bool:
        """Return whether the frame that waits should be judged again."""
        ledger = self._ledger
        if ledger.state >= DRAINING or ledger.now >= self.retry_at:
            return True
        return self._window.fits(self._length) if self._length else self._stream_fits()

    def _stream_fits(self) -> bool:
        config = self._ledger.config
        table = self._table
        if table.incoming >= config.max_incoming_streams:
            return False
        return len(table.accept_queue) < config.accept_backlog or self._reader_waits()

    def _reader_waits(self) -> bool:
        """Return whether a reader waits for bytes, which may be behind the frame that is held."""
        return any(stream.read_waiter is not None for stream in self._table.streams.values())
