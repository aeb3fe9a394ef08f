"""Drives one core session in a trio nursery: tasks that read, write, and watch the clock.

How it works. The reading task puts what comes into the core, and wakes the calls whose waiters the
core returns. Only the writing task sends: a call changes the core's state and sets `_wakeup`, so
that cancelling the call can't leave half a frame behind. The third task sleeps until the core's
next deadline, or until that has come nearer (`_alarm`).

The tasks are shielded from cancellation from outside, because they end with the session: at the
end of its block, within `Config.close_timeout`. Whatever a task raises ends the session (`_fail`),
and what other tasks wait for is set in a `finally`, so that nothing waits for a dead task.

Trio delivers KeyboardInterrupt to any code of the main thread that is not protected from it.
These tasks are protected, and so are the calls that change the core's state: an interrupt in the
middle would leave half a change.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Protocol

import trio

from .. import forks
from ..admission import refuse
from ..core import ABORT, CLOSE, HALF_CLOSE, NOTHING, CoreSession, CoreStream
from ..errors import ErrorCode
from ..front_end import WRITE_SIZE, BaseDriver, call_logged
from ..registry import SessionRecord
from .secured import Channel, straight_over

logger: logging.Logger = logging.getLogger("muxado")

READ_SIZE = 256 * 1024

# Bytes that are written before other tasks get a turn.
SEND_SIZE = 256 * 1024

# Seconds that an aborted session has to finish the frame that it is sending, and then to send its
# GOAWAY. A socket that has room takes both at once.
GOAWAY_TIME = 0.1

# Turns that the application gets when the core pauses parsing for it: the tasks that write and
# accept need one to be woken, and some to do their work.
TURNS = 4

# What a transport raises when the connection is lost. Anything else is a fault of the transport,
# and logged.
TRIO_LOST = (trio.BrokenResourceError, trio.ClosedResourceError)  # they have what trio met as cause
LOST = (*TRIO_LOST, OSError)


class Waiter(Protocol):
    """What calls leave with the core: an event of trio's, or an object like it."""

    def set(self) -> None:
        """Wake the task that waits."""


class Callback:
    """Has trio call a function, when the core wakes it in the place of a task."""

    __slots__ = ("_callback", "_driver")

    def __init__(self, driver: Driver, callback: Callable[[], object]) -> None:
        self._driver = driver
        self._callback = callback

    def set(self) -> None:
        """Have it called soon."""
        self._driver.call_soon(partial(call_logged, self._callback))


class Driver(BaseDriver):
    """Connects a core session and a trio stream.

    Attributes:
        core: the session. Its clock is trio's, which tests may replace.
        record: what this process knows of the session besides.
        transport: the trio stream that carries it.
        lost: True once that is gone.
        fatal: what a task met that must end the program, KeyboardInterrupt above all. It is for
            the end of the session's block to raise.
    """

    def __init__(
        self, core: CoreSession, transport: trio.abc.Stream, record: SessionRecord
    ) -> None:
        self.core = core
        self.record: SessionRecord = record
        self.transport = transport
        # What the core's bytes are read from and written to without trio's stream between.
        self._straight: Channel | None = straight_over(transport)
        self._sent = 0  # since other tasks had a turn
        self.lost: bool = False
        self.fatal: BaseException | None = None
        self._met: BaseException | None = None  # what the writing task met first
        self._faulty = False  # the transport has raised an error of its own
        self._block: trio.CancelScope | None = None  # of the nursery that the tasks live in
        self._tell: Callable[[int], None] = _ignore
        self._wakeup = trio.Event()  # for the writing task
        self._alarm = trio.Event()  # for the task that watches the clock
        self._due = inf  # when that one looks next
        self._watching = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._read_done = trio.Event()
        self._readable = trio.Event()  # for the reading task, while it is held back
        self._sending = trio.CancelScope()
        self._abandoned: deque[CoreStream] = deque()
        self._token = trio.lowlevel.current_trio_token()
        forks.watch(self)

    def subscribe(self, notify: Callable[[int], None]) -> None:
        """Have `notify` called with the core's events, and with 0 when the transport is gone."""
        self._tell = notify

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        self._block = nursery.cancel_scope
        nursery.start_soon(self._run, name="muxado session")

    async def finish(self) -> None:
        """Let go of the transport if the tasks could not; to be called when they are done."""
        if not self.lost:
            await self._close()
            self._lose(None)

    # For the calls

    def flush_soon(self) -> None:
        """Have the writing task send what waits."""
        if not self.lost:
            self._wakeup.set()

    def flush(self) -> None:
        """After a change of the core: wake tasks, set the timer, and have what waits sent."""
        core = self.core
        self._report()
        if self.lost:
            return
        if core.closing.output_step() == ABORT:
            self._hurry()
        if core.next_deadline() < self._due:
            self._alarm.set()
        self._wakeup.set()

    def refuse(self) -> None:
        """End a session that its server has no room for."""
        refuse(self.core, trio.current_time())
        self.flush()

    def abandon(self, stream: CoreStream) -> None:
        """Reset a stream that was dropped; may be called from any thread."""
        self._abandoned.append(stream)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.flush_soon, idempotent=True)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have trio call a function soon, unless it has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    def forget_in_child(self) -> None:
        """Leave the session to the parent process, after a fork."""
        if not self.lost:
            self.lost = True
            forks.disconnect(descriptors(self.transport))
            # The core's clock may be trio's, which can't be asked here.
            forks.disown(self.core, 0.0)

    def _hurry(self) -> None:
        deadline = trio.current_time() + GOAWAY_TIME
        self._sending.deadline = min(self._sending.deadline, deadline)

    def _wake(self, waiter: Waiter) -> None:
        waiter.set()

    def _notify(self, events: int) -> None:
        self._tell(events)

    # The tasks

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read_on, name="muxado session reading")
                    nursery.start_soon(self._watch, name="muxado session watching the clock")
                    try:
                        await self._write()
                    finally:
                        self._reading.cancel()
                        self._watching.cancel()
                        await self._close()
            except BaseException as exc:
                self._fail(exc)
            finally:
                self._lose(None)

    @trio.lowlevel.enable_ki_protection
    async def _read_on(self) -> None:
        try:
            with self._reading:
                await self._read()
                self.core.receive_eof(trio.current_time())
                self.flush()
        except trio.Cancelled:
            raise
        except BaseException as exc:
            self._fail(exc)
        finally:
            self._read_done.set()

    async def _read(self) -> None:
        core = self.core
        straight = self._straight
        receive = self._receive if straight is None else partial(self._receive_straight, straight)
        while not self.lost and await receive():
            self.flush()
            while core.paused:
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()
                core.resume(trio.current_time())
                self.flush()
            while not core.wants_input and not self.lost:
                self._readable = trio.Event()
                await self._readable.wait()

    async def _receive(self) -> int:
        """Take in what the transport brings next; return its size, 0 at the end."""
        try:
            data = await self.transport.receive_some(READ_SIZE)
        except trio.BrokenResourceError as exc:
            if not isinstance(exc.__cause__, ssl.SSLEOFError):
                raise
            return 0  # an end without TLS's close_notify
        if data:
            self.core.receive_data(data, trio.current_time())
        return len(data)

    async def _receive_straight(self, straight: Channel) -> int:
        """Do the same with a socket, reading into the core's buffer.

        Not by trio's `recv_into`, which waits with the buffer in its hand: the core may have
        another one by then.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                count = straight.recv_into(self.core.receive_buffer())
            except BlockingIOError:
                await trio.lowlevel.wait_readable(straight.sock)
                continue
            if count:
                self.core.bytes_received(count, trio.current_time())
            return count

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        core = self.core
        try:
            with self._watching:
                while True:
                    self._alarm = trio.Event()
                    self._due = core.next_deadline()
                    with trio.move_on_at(self._due) as scope:
                        await self._alarm.wait()
                    if scope.cancelled_caught:
                        core.handle_timer(trio.current_time())
                        self.flush()
                        if core.wants_input:
                            self._readable.set()
        except trio.Cancelled:
            raise
        except BaseException as exc:
            self._fail(exc)

    async def _write(self) -> None:
        core = self.core
        whole = True  # every frame that was begun is out
        try:
            with self._sending:
                while not self.lost and core.closing.output_step() != ABORT:
                    self._wakeup = trio.Event()
                    while self._abandoned:
                        self._abandoned.popleft().reset(ErrorCode.STREAM_CANCELLED)
                    data = core.data_to_send(trio.current_time(), WRITE_SIZE)
                    self._report()
                    if core.next_deadline() < self._due:
                        self._alarm.set()
                    if data:
                        whole = False
                        if self._straight is None:
                            await self.transport.send_all(data)
                        else:
                            await self._send_straight(data, self._straight)
                        whole = True
                    elif core.closing.output_step() in (HALF_CLOSE, CLOSE):
                        await self._end()
                        return
                    else:
                        await self._wakeup.wait()
                        if core.ledger.queued < WRITE_SIZE:
                            # Other tasks of this turn can add to the same write.
                            await trio.lowlevel.checkpoint()
            with trio.move_on_after(GOAWAY_TIME):
                while whole and (data := core.data_to_send(trio.current_time(), WRITE_SIZE)):
                    await self.transport.send_all(data)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            if isinstance(exc, Exception):
                self._met = exc.__cause__ or exc if isinstance(exc, TRIO_LOST) else exc
                # What the peer sent before it left can still be read.
                with trio.move_on_after(GOAWAY_TIME):
                    await self._read_done.wait()
            self._fail(exc)

    async def _send_straight(self, data: bytes, straight: Channel) -> None:
        """Send all of it on a socket; with fewer turns of the loop than trio's `send_all` takes."""
        rest = memoryview(data)
        while True:
            try:
                rest = rest[straight.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(straight.sock)
                continue
            if not rest:
                break
        self._sent += len(data)
        if self._sent >= SEND_SIZE:
            self._sent = 0
            await trio.lowlevel.checkpoint()

    async def _end(self) -> None:
        """End the transport, having read to the peer's end.

        A close with unread input would reset the connection, and destroy what the peer has
        not read yet.
        """
        transport = self.transport
        self.core.closing.end_output()
        if isinstance(transport, trio.SSLStream) and not self.core.ledger.eof_received:
            self._reading.cancel()
            await self._read_done.wait()
            await _end_tls(transport)
        elif isinstance(transport, trio.abc.HalfCloseableStream):
            await transport.send_eof()
            while self.core.closing.output_step() == NOTHING and not self.lost:
                self._wakeup = trio.Event()
                await self._wakeup.wait()
        else:
            self._reading.cancel()
            await transport.aclose()

    async def _close(self) -> None:
        """Close the transport at once, without waiting for the peer."""
        try:
            await close_forcefully(self.transport)
        except BaseException as exc:
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        """End the session for what a task raised; what is no `Exception` ends its block too."""
        if not isinstance(exc, Exception):
            self._faulty = True
            if self.fatal is None:
                self.fatal = exc
            if self._block is not None:
                self._block.cancel()
        elif not isinstance(exc, LOST):
            if not self._faulty:
                logger.error("the transport of %r failed", self.core, exc_info=exc)
            self._faulty = True
        elif isinstance(exc, TRIO_LOST):
            exc = exc.__cause__ or exc
        if not self.lost:
            if self.fatal is None:
                exc = self._met or exc
                exc = exc.with_traceback(None)  # its frames would keep the session's buffers alive
            self._lose(exc)

    def _lose(self, exc: BaseException | None) -> None:
        if self.lost:
            return
        self.lost = True
        try:
            self.core.connection_lost(exc, trio.current_time())
        finally:
            self._sending.cancel()
            self._watching.cancel()
            self._wakeup.set()
            self._readable.set()
            self._report()
            self.record.ended()
            self._notify(0)
            self._tell = _ignore  # no cycle keeps an ended session alive


class Exhausted(trio.abc.Stream):
    """Stands in for a transport during `discard`: nothing more comes in."""

    class Over(Exception):
        """All that had come in was read."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise self.Over

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._transport.aclose()


async def discard(secured: trio.SSLStream[trio.abc.Stream]) -> None:
    """Throw away what TLS has taken in and not decrypted yet."""
    transport = secured.transport_stream
    secured.transport_stream = Exhausted(transport)
    try:
        while await secured.receive_some(READ_SIZE):
            pass
    except Exhausted.Over:
        pass
    finally:
        secured.transport_stream = transport


async def _end_tls(secured: trio.SSLStream[trio.abc.Stream]) -> None:
    """Send TLS's close_notify and the end, and read, undecrypted, to the peer's end."""
    transport = secured.transport_stream
    try:
        with contextlib.suppress(trio.BrokenResourceError):  # for the peer, which goes on sending
            # Data before the peer's close_notify is an error, which keeps ours from being sent.
            await discard(secured)
            await secured.unwrap()
        if isinstance(transport, trio.abc.HalfCloseableStream):
            await transport.send_eof()
        while await transport.receive_some(READ_SIZE):
            pass
    finally:
        await close_forcefully(transport)


async def close_forcefully(transport: trio.abc.AsyncResource) -> None:
    """Close a transport without waiting for its peer.

    It is shielded, because Cancelled would replace an exception that is being raised, and a
    KeyboardInterrupt would be lost.
    """
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(transport)


def descriptors(transport: object) -> Iterator[int]:
    """Yield the numbers of the descriptors that are under a trio stream."""
    yield forks.descriptor(getattr(transport, "socket", transport))
    for name in ("transport_stream", "send_stream", "receive_stream"):  # TLS; two pipes
        part = getattr(transport, name, None)
        if part is not None:
            yield from descriptors(part)


def _ignore(events: int) -> None:
    pass
