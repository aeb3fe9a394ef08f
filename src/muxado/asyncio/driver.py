"""Drives one core session on the event loop: flushes, timers and wake-ups.

One flush per loop turn carries what every stream has queued meanwhile. A call only changes the
core's state, in one step, and asks for the flush, which waits for nothing: so cancelling a task
can't leave half a frame behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

from ..core import CoreSession, CoreStream
from ..core.states import CLOSING
from ..errors import ErrorCode

# Bytes per write, and per loop turn: more would keep the loop from reading.
WRITE_SIZE = 64 * 1024
TURN_SIZE = 256 * 1024


class Link(Protocol):
    """What carries a session's bytes: an asyncio transport, or a reader and a writer."""

    writable: bool
    """False while nothing more should be written; `Driver.flush` is called when it ends."""

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""

    def half_close(self) -> None:
        """End the output after what was written, or all of it where only that can be had."""

    def close(self) -> None:
        """End both directions after what was written."""

    def abort(self) -> None:
        """End both directions at once."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what asyncio's `BaseTransport.get_extra_info` returns."""


def ignore(events: int) -> None:
    """Do nothing with events that nobody has subscribed to."""


class Driver:
    """Connects a core session, a link and an event loop.

    Times are of `time.monotonic`: uvloop's own clock counts whole milliseconds.

    Attributes:
        core: the session.
        loop: the event loop.
        link: what carries the bytes; set before anything else happens.
        lost: True once the link is gone.
    """

    __slots__ = (
        "_alone",
        "_flushing",
        "_notify",
        "_output_ended",
        "_resuming",
        "_timer",
        "_timer_due",
        "core",
        "link",
        "loop",
        "lost",
    )

    link: Link

    def __init__(
        self,
        core: CoreSession,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.core: CoreSession = core
        self.loop: asyncio.AbstractEventLoop = loop
        self.lost: bool = False
        self._notify: Callable[[int], None] = ignore
        self._alone = False  # the last input stirred one task only
        self._flushing = False
        self._output_ended = False
        self._resuming = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = inf

    def subscribe(self, notify: Callable[[int], None]) -> None:
        """Have `notify` called with the core's events, and with 0 when the link is gone."""
        self._notify = notify

    # For the link

    def received(self, count: int) -> None:
        """Take in bytes that were put into the core's receive buffer."""
        core = self.core
        core.bytes_received(count, monotonic())
        self._alone = len(core.wakes) + len(core.accept_queue) == 1
        self.settle()

    def received_data(self, data: bytes) -> None:
        """Take in bytes."""
        self.core.receive_data(data, monotonic())
        self.settle()

    def received_eof(self) -> None:
        """Take note that the input has ended."""
        self.core.receive_eof(monotonic())
        if self._output_ended:
            self.link.close()
        self.settle()

    def connection_lost(self, exception: BaseException | None) -> None:
        """Take note that the link is gone."""
        if self.lost:
            return
        self.lost = True
        self.core.connection_lost(exception, monotonic())
        if self._timer is not None:
            self._timer.cancel()
        self.settle()
        self._notify(0)

    def flush(self) -> None:
        """Write what waits, as far as the link takes it and a loop turn allows."""
        self._flushing = False
        if self.lost:
            self._report()
            return
        core = self.core
        link = self.link
        now = monotonic()
        written = 0
        while link.writable and not self._output_ended:
            data = core.data_to_send(now, WRITE_SIZE)
            if not data:
                break
            link.write(data)
            written += len(data)
            if written >= TURN_SIZE:
                self.flush_soon()
                break
        self._report()
        if core.state >= CLOSING:
            self._end_output()
        self._set_timer()

    # For the calls

    def flush_soon(self) -> None:
        """Flush once everything that runs in this loop turn has had its say."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush_now)

    def flush_before_wait(self) -> None:
        """Flush for a task that has done what it can for now.

        At once if the task is the only one that the last input has stirred: there is nothing
        to wait for, and a loop turn costs as much as the rest of a round trip.
        """
        if self._alone:
            self._alone = False
            self.flush()
        else:
            self.flush_soon()

    def _flush_now(self) -> None:
        if self._flushing:  # else it was done before its turn
            self.flush()

    def abandon(self, stream: CoreStream) -> None:
        """Reset a stream that nobody holds any more."""
        stream.reset(ErrorCode.STREAM_CANCELLED)
        self.settle()

    def settle(self) -> None:
        """Do what a change of the core's state calls for."""
        core = self.core
        self._report()
        if self.lost:
            return
        if core.held and not self._resuming:
            self._resuming = True
            self.loop.call_soon(self._resume)
        if core.state >= CLOSING or core.pending():
            self.flush_soon()
        self._set_timer()

    def _report(self) -> None:
        core = self.core
        if core.wakes:
            for waiter in core.take_wakes():
                assert isinstance(waiter, asyncio.Future)
                if not waiter.done():
                    waiter.set_result(None)
        events = core.take_events()
        if events:
            self._notify(events)

    def _resume(self) -> None:
        self._resuming = False
        if not self.lost:
            self.core.resume(monotonic())
            self.settle()

    def _end_output(self) -> None:
        """Half-close and then close the link, once the core has nothing more to say."""
        core = self.core
        if core.abort_transport:
            self.link.abort()
        elif core.output_done() and not self._output_ended:
            self._output_ended = True
            core.end_output()
            if core.eof_received:
                self.link.close()
            else:
                # Reading goes on: a close with unread input would reset the connection, and
                # destroy what the peer has not read yet.
                self.link.half_close()

    def _set_timer(self) -> None:
        deadline = self.core.next_deadline()
        # A timer that fires too early only looks, and sets the next one.
        if deadline >= self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = deadline
        self._timer = self.loop.call_later(deadline - monotonic(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due = inf
        if not self.lost:
            self.core.handle_timer(monotonic())
            self.settle()
