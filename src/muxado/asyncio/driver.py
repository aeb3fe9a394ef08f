"""Drives one core session on an event loop: sends, sets the timer, and wakes tasks.

How it works. A call of a task changes the core's state in one step, and then asks for a flush.
The flush runs once, at the end of the loop's turn (`flush_soon`), so that one write carries what
all streams have queued meanwhile. It waits for nothing: cancelling a task can't leave half a
frame behind. Only a task that alone was woken by the last input flushes at once when it is about
to wait (`flush_before_wait`), since no other task has anything to add.

Input comes from the link, which puts it into the core. After each change of the core, `flush`
wakes the tasks whose futures the core returns, tells the session of events, sets the one timer
for the core's next deadline, and asks for a flush if the core has something to send. If parsing
has paused, so that the application can run, it goes on in the loop's next turn (`_resume`).

The loop holds the link, the link holds the driver, and the driver holds the session weakly: a
session that the program drops is noticed, and ended.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeVar

from .. import forks
from ..admission import refuse
from ..core import ABORT, CLOSE, HALF_CLOSE, NOTHING, CoreSession, CoreStream
from ..errors import ErrorCode
from ..front_end import WRITE_SIZE, BaseDriver
from ..registry import SessionRecord
from .wait_queue import WaitQueue

T = TypeVar("T")

# Bytes that are written in one turn of the loop: more would keep it from reading.
SEND_SIZE = 256 * 1024


class Link(Protocol):
    """What carries a session's bytes: an asyncio transport, or a reader and a writer."""

    writable: bool
    """False while nothing more should be written; `Driver.send` is called when it ends."""

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""

    def pause_reading(self) -> None:
        """Read no more, so that the peer can't send more than fits on the way."""

    def resume_reading(self) -> None:
        """Read on."""

    def half_close(self) -> None:
        """End the output after what was written, or all of it where only that can be had."""

    def close(self) -> None:
        """End both directions after what was written."""

    def abort(self) -> None:
        """End both directions at once."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what asyncio's `BaseTransport.get_extra_info` returns."""

    def descriptors(self) -> list[int]:
        """Return the numbers of the descriptors that it has, -1 for one that is closed."""


def ask(of: Any, name: str, default: object = None) -> object:
    """Return what the `get_extra_info` of a transport gives, or the default if it raises.

    It does once the transport is closed, since uvloop asks the closed socket, and asyncio's TLS an
    object that it has dropped; and uvloop asks a pipe for an address.
    """
    try:
        found: object = of.get_extra_info(name, default)
    except (AttributeError, OSError, ValueError):
        return default
    return found


class Ended:
    """Takes the place of a link that is gone, and keeps what was known of the connection."""

    writable = False

    def __init__(self, link: Link) -> None:
        names = ("peername", "sockname", "sslcontext", "peercert", "cipher", "compression")
        self._info = {name: ask(link, name) for name in names}

    def write(self, data: bytes) -> None:
        """Do nothing, like what follows."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def half_close(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def descriptors(self) -> list[int]:
        return []

    def get_extra_info(self, name: str, default: object = None) -> object:
        found = self._info.get(name)
        return default if found is None else found


class Driver(BaseDriver):
    """Connects a core session, a link and an event loop.

    Times are of `time.monotonic`: uvloop's own clock counts whole milliseconds.

    Attributes:
        core: the session.
        loop: the event loop.
        link: what carries the bytes; set before anything else happens.
        record: what this process knows of the session besides.
        lost: True once the link is gone.
        acceptors: the tasks that wait for a stream to accept.
        waiters: the futures of the tasks that wait for anything else of the session.
    """

    __slots__ = (
        "__weakref__",
        "_alone",
        "_flushing",
        "_reads",
        "_resuming",
        "_session",
        "_tell",
        "_timer",
        "_timer_due",
        "acceptors",
        "core",
        "link",
        "loop",
        "lost",
        "record",
        "waiters",
    )

    link: Link

    def __init__(
        self,
        core: CoreSession,
        loop: asyncio.AbstractEventLoop,
        record: SessionRecord,
    ) -> None:
        self.core: CoreSession = core
        self.record: SessionRecord = record
        self.loop: asyncio.AbstractEventLoop = loop
        self.lost: bool = False
        self.acceptors: WaitQueue = WaitQueue()
        self.waiters: set[asyncio.Future[None]] = set()
        self._session: weakref.ref[object] | None = None
        self._tell: Callable[[Any, int], object]  # what is called with it
        self._alone = False  # the last input woke one task only
        self._flushing = False
        self._reads = True  # the link is read
        self._resuming = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = inf
        forks.watch(self)

    def subscribe(self, session: T, notify: Callable[[T, int], object]) -> None:
        """Have `notify(session, events)` called, with events of 0 when the link is gone.

        The session is held weakly. It lives for as long as the program has it, or a task waits in
        `acceptors` or `waiters`, where the loop finds it.
        """
        self._session = weakref.ref(session)
        self._tell = notify

    def _notify(self, events: int) -> None:
        session = None if self._session is None else self._session()
        if session is not None:
            self._tell(session, events)

    # For the link

    def connected(self) -> None:
        """Take note that the link has a connection, which may be used from then on."""
        self.record.began(ask(self.link, "sockname"), ask(self.link, "peername"))
        self.flush()

    def received(self, count: int) -> None:
        """Take in bytes that were put into the core's receive buffer."""
        core = self.core
        core.bytes_received(count, monotonic())
        self._alone = len(core.ledger.wakes) + core.table.acceptable == 1
        self.flush()

    def received_data(self, data: bytes) -> None:
        """Take in bytes."""
        self.core.receive_data(data, monotonic())
        self.flush()

    def received_eof(self) -> None:
        """Take note that the input has ended."""
        self.core.receive_eof(monotonic())
        self.flush()

    def give_up(self) -> None:
        """End a session whose connection failed while it was made.

        Nothing is written: uvloop may have closed the transport without telling the link.
        """
        self.link.abort()
        self.connection_lost(None)

    def connection_lost(self, exception: BaseException | None) -> None:
        """Take note that the link is gone."""
        if self.lost:
            return
        self.lost = True
        if exception is not None:
            # The session keeps it; its frames keep the transport, with the buffers of TLS.
            exception.__traceback__ = None
        self.core.connection_lost(exception, monotonic())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        self.record.ended()
        self._notify(0)
        self.link = Ended(self.link)  # two that hold each other would wait for the collector

    def send(self) -> None:
        """Write what waits, as far as the link takes it and a loop turn allows."""
        self._flushing = False
        if self.lost:
            self._report()
            return
        core = self.core
        link = self.link
        now = monotonic()
        written = 0
        while link.writable:
            data = core.data_to_send(now, WRITE_SIZE)
            if not data:
                break
            link.write(data)
            written += len(data)
            if written >= SEND_SIZE:
                self.flush_soon()
                break
        self._report()
        self._end_output()
        self._set_timer()

    # For the calls

    def flush_soon(self) -> None:
        """Send what waits once everything has run that runs in this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            try:
                self.loop.call_soon(self._send_now)
            except RuntimeError:
                self._look_whether_closed()

    def flush_before_wait(self) -> None:
        """Send what waits, for a task that is about to wait itself.

        It is sent at once if the task is the only one that the last input has woken: no other
        task has anything to add, and a turn of the loop costs as much as the rest of a round trip.
        """
        if self._alone:
            self._alone = False
            self.send()
        else:
            self.flush_soon()

    def _send_now(self) -> None:
        if self._flushing:  # else it was done before its turn
            self.send()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back in the loop's next turn; never, if the loop is closed."""
        try:
            self.loop.call_soon(callback, *args)
        except RuntimeError:
            self._look_whether_closed()

    def _look_whether_closed(self) -> None:
        """Raise on the exception of a call to the loop, unless the loop is closed.

        Tasks and streams that outlive their loop come to their end when they are collected, and
        must not fail then: what they ask for has no effect any more.
        """
        if not self.loop.is_closed():
            raise

    def abandon(self, stream: CoreStream) -> None:
        """Reset a stream that was dropped."""
        stream.reset(ErrorCode.STREAM_CANCELLED)
        self.flush()

    def refuse(self) -> None:
        """End a session that its server has no room for."""
        refuse(self.core, monotonic())
        self.flush()

    def abandon_session(self) -> None:
        """Abort a session that was dropped."""
        self.core.abort(ErrorCode.STREAM_CANCELLED, monotonic())
        self.flush()

    def forget_in_child(self) -> None:
        """Leave the session to the parent process, after a fork."""
        if not self.lost:
            self.lost = True
            forks.disconnect(self.link.descriptors())
            forks.disown(self.core)

    def flush(self) -> None:
        """After a change of the core: wake tasks, set the timer, and have what waits sent."""
        core = self.core
        self._report()
        if self.lost:
            return
        if core.paused and not self._resuming:
            self._resuming = True
            self.call_soon(self._resume)
        if core.closing.output_step() != NOTHING:
            self.flush_soon()
        if core.wants_input != self._reads:
            self._reads = not self._reads
            if self._reads:
                self.link.resume_reading()
            else:
                self.link.pause_reading()
        self._set_timer()

    def _report(self) -> None:
        try:
            super()._report()
        except RuntimeError:
            self._look_whether_closed()

    def _wake(self, waiter: asyncio.Future[None] | Callable[[], object]) -> None:
        if callable(waiter):
            self.loop.call_soon(waiter)
        elif not waiter.done():
            waiter.set_result(None)

    def _resume(self) -> None:
        self._resuming = False
        if not self.lost:
            self.core.resume(monotonic())
            self.flush()

    def _end_output(self) -> None:
        """Half-close, close or abort the link, once the core says so."""
        closing = self.core.closing
        step = closing.output_step()
        if step == ABORT:
            self.link.abort()
        elif step == CLOSE:
            closing.end_output()
            self.link.close()
        elif step == HALF_CLOSE:
            # Reading goes on, since a close with unread input would reset the connection, and
            # destroy what the peer has not read yet.
            closing.end_output()
            self.link.half_close()

    def _set_timer(self) -> None:
        deadline = self.core.next_deadline()
        # A timer that fires too early only looks, and sets the next one.
        if deadline >= self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = deadline
        try:
            self._timer = self.loop.call_later(deadline - monotonic(), self._on_timer)
        except RuntimeError:
            self._look_whether_closed()

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due = inf
        if not self.lost:
            self.core.handle_timer(monotonic())
            self.flush()
