"""Receive credit: what each peer's stream may still send, what is held, and when more is granted.

This module alone decides it and stores it. A byte of a stream's window is in one of these places:

    recv_credit     the peer may send it
    coming          the frame's header is in, and was judged; the byte isn't here yet
    unread          it is in the stream's inbox
    claimed         it is in the inbox too, but counts as read: see below
    read            the application has it, and the peer may be granted another one

`outstanding` is the sum of the first three: what the peer may still make us hold. A grant fills it
up to the window. It is due once half of the window is used up, or `STEP` bytes of a large one: a
sender of half a window at a time would go only half as fast as the window lets it. How large the
window is, `credit.py` estimates; how much is granted is only computed when the grant is sent.

A reader that wants more at once than the window lets in *claims* what is there: the bytes stay in
the inbox, and are there if the reader gives up, but the peer is granted as many more.

What all streams hold together is bounded by `Config.max_receive_memory`, or by what a `MemoryPool`
leases to this session. Where a wire has no reset, what is too much waits (`holding.py`): then a
sender that goes beyond its credit is let in as well, as Go does, for only memory bounds it.
"""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode
from ..wire import Decoder, Encoder
from .buffers import Inbox
from .credit import CreditEstimator
from .ledger import Ledger, StreamLedger, take_first
from .memory_pool import MemoryPool, PoolMember
from .states import LOCAL_DONE, OPEN

# A large window is filled up in steps of this many bytes.
STEP: Final = 128 * 1024

MAX_INCREMENT: Final = 0x7FFFFFFF


class Window(PoolMember):
    """The receive credit of one session; it acts on the streams that it is given.

    Attributes:
        credit: how large the windows should be.
        grants: the streams that wait for a grant to be sent, by id.
        unread: bytes received, and neither read nor claimed.
        claimed: bytes received that readers wait to have more of.
        received: payload bytes received in all.
        read: payload bytes that counted as read, in all.
    """

    __slots__ = (
        "_decoder",
        "_encoder",
        "_ledger",
        "_most_held",
        "_pool",
        "_totals",
        "_waiting",
        "claimed",
        "credit",
        "grants",
        "read",
        "received",
        "unread",
    )

    def __init__(
        self, ledger: Ledger, decoder: Decoder, encoder: Encoder, pool: MemoryPool | None
    ) -> None:
        self._ledger = ledger
        self._decoder = decoder
        self._encoder = encoder
        self._pool = pool
        self._totals: bool = ledger.rules.total_credit  # credit is told as a total
        self._waiting = False  # a frame that has come waits for memory, and is not judged
        most = ledger.config.max_receive_memory
        self._most_held: int = most if pool is None else 0  # how much may be received and unread
        if pool is not None:
            most = min(most, pool.most)
        self.credit: CreditEstimator = CreditEstimator(
            ledger.config.max_window, most // 2, ledger.now
        )
        self.grants: dict[int, StreamLedger] = {}
        self.unread: int = 0
        self.claimed: int = 0
        self.received: int = 0
        self.read: int = 0

    def allow(self) -> None:
        """Hold as much as the settings say, which have been changed to more."""
        most = self._ledger.config.max_receive_memory
        if self._pool is None:
            self._most_held = most
        else:
            most = min(most, self._pool.most)
        self.credit.allow(most // 2)

    # What comes

    def admit(self, stream: StreamLedger, length: int) -> int:
        """Judge the header of a DATA frame, and let its body in.

        Returns:
            0, or the code to reset the stream with; then nothing is let in.
        """
        if length > stream.recv_credit:
            return int(ErrorCode.FLOW_CONTROL_ERROR)
        held = self.unread + self.claimed + length
        if held > self._most_held and not self._lease(held):
            return int(ErrorCode.ENHANCE_YOUR_CALM)
        stream.recv_credit -= length
        self.received += length
        return 0

    def admit_or_wait(self, stream: StreamLedger, length: int, last: bool) -> int:
        """Do the same where a stream can't be reset.

        Args:
            stream: the stream.
            length: the length of the frame's body.
            last: whether there is no other time for it.

        Returns:
            0, or ENHANCE_YOUR_CALM: the frame is to wait until it `fits`.
        """
        self._waiting = not last and not self.fits(length)
        if self._waiting:
            return int(ErrorCode.ENHANCE_YOUR_CALM)
        beyond = length - stream.recv_credit
        if beyond > 0:  # it counts as granted
            stream.recv_credit += beyond
            stream.recv_granted += beyond
        stream.recv_credit -= length
        self.received += length
        return 0

    def end_wait(self) -> None:
        """Take note that no frame waits for memory."""
        self._waiting = False

    def fits(self, length: int) -> bool:
        """Return whether there is memory for so many bytes; where nothing is held, there is."""
        held = self.unread + self.claimed
        return held + length <= self._most_held or self._lease(held + length) or not held

    def never_fits(self, length: int) -> bool:
        """Return whether readers that wait for more hold so much that it can't come."""
        return self.claimed > 0 and self.claimed + length > self._ledger.config.max_receive_memory

    @property
    def pooled(self) -> bool:
        """Whether the memory is shared with other sessions."""
        return self._pool is not None

    def put(self, stream: StreamLedger, chunk: bytes) -> None:
        """Add bytes that came to what can be read."""
        self.unread += len(chunk)
        inbox = stream.inbox
        if inbox is None:
            stream.inbox = Inbox(chunk)
        else:
            inbox.append(chunk)

    def pass_over(self, stream: StreamLedger, count: int) -> None:
        """Count bytes that came as read: nothing keeps them."""
        self.unread += count
        self._consumed(stream, count)

    # What is read

    def take(self, stream: StreamLedger, limit: int) -> bytes:
        """Take the first unread bytes of a stream that has some, at most `limit`.

        As many are granted.
        """
        inbox = stream.inbox
        assert inbox is not None
        data = inbox.read(limit)
        if not inbox.size:
            stream.inbox = None  # an idle stream holds no buffers
        count = len(data)
        if stream.claimed:
            granted = min(stream.claimed, count)
            stream.claimed -= granted
            self.claimed -= granted
            count -= granted
        if count:
            self._consumed(stream, count)
        return data

    def claim(self, stream: StreamLedger, limit: int) -> None:
        """Grant credit for the first unread bytes, at most `limit`, before they are read."""
        inbox = stream.inbox
        if inbox is None:
            return
        count = min(limit, inbox.size) - stream.claimed
        if count > 0:
            stream.claimed += count
            self.claimed += count
            self._consumed(stream, count)

    def discard(self, stream: StreamLedger) -> None:
        """Throw away what is unread of a stream that has some."""
        inbox = stream.inbox
        assert inbox is not None
        count = inbox.size - stream.claimed
        stream.inbox = None
        self.claimed -= stream.claimed
        stream.claimed = 0
        self._consumed(stream, count)

    def _consumed(self, stream: StreamLedger, count: int) -> None:
        """Account for bytes that count as read, and queue a grant if it is due."""
        self.unread -= count
        self.read += count
        window = stream.window
        held = stream.recv_credit
        if self._waiting:  # the flush of a grant is what judges the frame again
            if not stream.granting:
                stream.granting = True
                self.grants[stream.stream_id] = stream
            return
        if stream.granting or (held > window >> 1 and window - held < STEP):
            return
        held = self.outstanding(stream)
        state = stream.state
        if not worth_granting(window, held) or (state != OPEN and state != LOCAL_DONE):
            return
        credit = self.credit
        if stream.epoch != credit.epoch:
            stream.epoch = credit.epoch
            credit.stream_counted()
        share = credit.share()
        # A window that has become smaller is not filled up to what it was.
        if share >= window or worth_granting(share, held):
            stream.granting = True
            self.grants[stream.stream_id] = stream

    def outstanding(self, stream: StreamLedger) -> int:
        """Return how many bytes of a stream the peer may still make us hold."""
        decoder = self._decoder
        held = stream.recv_credit - stream.claimed
        if decoder.body and decoder.stream_id == stream.stream_id and not self._waiting:
            held += decoder.body  # of the frame that is coming in
        inbox = stream.inbox
        return held if inbox is None else held + inbox.size

    # What is granted

    def send_grants(self, out: list[bytes | bytearray | memoryview], most: int) -> int:
        """Add the frames of the grants that wait to `out`, at most so many; return how many."""
        frames = 0
        share = self.credit.share()
        for stream in take_first(self.grants, most):
            stream.granting = False
            grant = min(share - self.outstanding(stream), MAX_INCREMENT)
            if grant > 0 and (stream.state == OPEN or stream.state == LOCAL_DONE):
                stream.window = share
                stream.recv_credit += grant
                stream.recv_granted += grant
                if self._totals:
                    consumed = stream.recv_granted - share
                    out.append(self._encoder.window(stream.stream_id, consumed, share))
                else:
                    out.append(self._encoder.credit(stream.stream_id, grant))
                frames += 1
        return frames

    def drop_grants(self) -> None:
        """Grant none of what waits any more."""
        self.grants.clear()

    def forget(self, stream: StreamLedger) -> None:
        """Note that a stream that waits for a grant is gone: it is granted nothing more."""
        stream.granting = False
        self.grants.pop(stream.stream_id, None)

    # The memory of all streams

    def return_unused(self) -> int:
        """Lease no more than what is held and on its way; the pool's own call."""
        coming = 0 if self._waiting else self._decoder.body
        self._most_held = coming + self.unread + self.claimed
        return self._most_held

    def leave_pool(self) -> None:
        """Lease nothing any more: the session has ended."""
        if self._pool is not None:
            self._pool.leave(self)
            self._pool = None

    def _lease(self, wanted: int) -> bool:
        """Ask the pool, if there is one, for so many bytes in all; return whether it has them."""
        pool = self._pool
        most = self._ledger.config.max_receive_memory
        if pool is None or wanted > most:
            return False
        self._most_held = min(pool.lease(self, wanted, self._ledger.now), most)
        return wanted <= self._most_held


class RefillingWindow(Window):
    """The receive credit where a sender tells by it what was read (`Rules.refills`).

    All is given back that was read, at the next flush, and even of a stream that is over.
    """

    __slots__ = ("_returns",)

    # Declared again because this class sets them too.
    grants: dict[int, StreamLedger]
    read: int
    unread: int

    def __init__(
        self, ledger: Ledger, decoder: Decoder, encoder: Encoder, pool: MemoryPool | None
    ) -> None:
        super().__init__(ledger, decoder, encoder, pool)
        self._returns: dict[int, int] = {}  # how many bytes, by stream

    def _consumed(self, stream: StreamLedger, count: int) -> None:
        self.unread -= count
        self.read += count
        if not count:
            return
        stream_id = stream.stream_id
        self._returns[stream_id] = self._returns.get(stream_id, 0) + count
        if not stream.granting:
            stream.granting = True
            self.grants[stream_id] = stream
        credit = self.credit
        if stream.epoch != credit.epoch and worth_granting(stream.window, stream.recv_credit):
            stream.epoch = credit.epoch
            credit.stream_counted()

    def send_grants(self, out: list[bytes | bytearray | memoryview], most: int) -> int:
        frames = 0
        share = self.credit.share()
        for stream in take_first(self.grants, most):
            stream.granting = False
            grant = self._returns.pop(stream.stream_id)
            if stream.state == OPEN or stream.state == LOCAL_DONE:
                grant = max(grant, min(share - self.outstanding(stream), MAX_INCREMENT))
                stream.window = max(share, stream.window)
            stream.recv_credit += grant
            stream.recv_granted += grant
            out.append(self._encoder.credit(stream.stream_id, grant))
            frames += 1
        return frames

    def drop_grants(self) -> None:
        super().drop_grants()
        self._returns.clear()

    def forget(self, stream: StreamLedger) -> None:
        """Grant all the same what was read of a stream that is gone."""


def worth_granting(window: int, held: int) -> bool:
    """Return whether a peer that still holds this much of a window should be given more."""
    return held <= window >> 1 or window - held >= STEP
