"""Drives one core session in a trio nursery: tasks that read, write, and watch the clock.

The writing task is the one flusher: a caller's task changes the core's state and rings its
bell, so that cancelling the caller can't leave half a frame behind. The tasks are shielded
from cancellation from outside, because the session's end is what ends them: it comes with the
end of the session's block, and within `Config.close_timeout`.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from math import inf

import trio

from ..core import CoreSession, CoreStream
from ..core.states import CLOSING
from ..errors import ErrorCode

WRITE_SIZE = 64 * 1024
READ_SIZE = 256 * 1024

# Seconds that an aborted session has for the frame that it is sending, and then for its
# farewell: a socket that has room takes both at once.
FAREWELL_TIME = 0.1

# Turns that the application gets when the core stops parsing for it: the tasks that write and
# accept need one to be woken, and some to do their work.
TURNS = 4

LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Driver:
    """Connects a core session and a trio stream.

    Attributes:
        core: the session. Its clock is trio's, which tests may replace.
        transport: the trio stream that carries it.
        lost: True once that is gone.
    """

    def __init__(self, core: CoreSession, transport: trio.abc.Stream) -> None:
        self.core = core
        self.transport = transport
        self.lost: bool = False
        self._notify: Callable[[int], None] = _ignore
        self._bell = trio.Event()  # for the task that writes
        self._alarm = trio.Event()  # for the task that watches the clock
        self._due = inf  # when that one looks next
        self._reading = trio.CancelScope()
        self._read_done = trio.Event()
        self._sending = trio.CancelScope()
        self._abandoned: deque[CoreStream] = deque()
        self._token = trio.lowlevel.current_trio_token()

    def start(self, nursery: trio.Nursery, notify: Callable[[int], None]) -> None:
        """Start the tasks. `notify` is called with the core's events, and with 0 at the end."""
        self._notify = notify
        nursery.start_soon(self._run, name="muxado session")

    # For the calls

    def flush_soon(self) -> None:
        """Have the writing task send what waits."""
        self._bell.set()

    def settle(self) -> None:
        """Do what a change of the core's state calls for."""
        core = self.core
        self._report()
        if core.abort_transport:
            self._hurry()
        if core.next_deadline() < self._due:
            self._alarm.set()
        self._bell.set()

    def abandon(self, stream: CoreStream) -> None:
        """Have a stream reset that nobody holds any more; called from anywhere."""
        self._abandoned.append(stream)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.flush_soon, idempotent=True)

    def _hurry(self) -> None:
        deadline = trio.current_time() + FAREWELL_TIME
        self._sending.deadline = min(self._sending.deadline, deadline)

    def _report(self) -> None:
        core = self.core
        if core.wakes:
            for waiter in core.take_wakes():
                assert isinstance(waiter, trio.Event)
                waiter.set()
        events = core.take_events()
        if events:
            self._notify(events)

    # The tasks

    async def _run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_on, name="muxado session reading")
                nursery.start_soon(self._watch, name="muxado session watching the clock")
                try:
                    await self._write()
                finally:
                    await trio.aclose_forcefully(self.transport)
                    self._lose(None)
                    nursery.cancel_scope.cancel()

    async def _read_on(self) -> None:
        with self._reading:
            try:
                await self._read()
                self.core.receive_eof(trio.current_time())
                self.settle()
            except LOST as exc:
                self._lose(exc.__cause__ or exc)
        self._read_done.set()

    async def _read(self) -> None:
        core = self.core
        while not self.lost:
            try:
                data = await self.transport.receive_some(READ_SIZE)
            except trio.BrokenResourceError as exc:
                if not isinstance(exc.__cause__, ssl.SSLEOFError):
                    raise
                data = b""  # an end without TLS's own farewell
            if not data:
                return
            core.receive_data(data, trio.current_time())
            self.settle()
            while core.held:
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()
                core.resume(trio.current_time())
                self.settle()

    async def _watch(self) -> None:
        core = self.core
        while True:
            self._alarm = trio.Event()
            self._due = core.next_deadline()
            with trio.move_on_at(self._due) as scope:
                await self._alarm.wait()
            if scope.cancelled_caught:
                core.handle_timer(trio.current_time())
                self.settle()

    async def _write(self) -> None:
        core = self.core
        whole = True  # every frame that was begun is out
        try:
            with self._sending:
                while not self.lost and not core.abort_transport:
                    self._bell = trio.Event()
                    while self._abandoned:
                        self._abandoned.popleft().reset(ErrorCode.STREAM_CANCELLED)
                    data = core.data_to_send(trio.current_time(), WRITE_SIZE)
                    self._report()
                    if core.next_deadline() < self._due:
                        self._alarm.set()
                    if data:
                        whole = False
                        await self.transport.send_all(data)
                        whole = True
                    elif core.state >= CLOSING and core.output_done():
                        await self._end()
                        return
                    else:
                        await self._bell.wait()
                        # Whatever else runs in this turn has its say, in the same frame.
                        await trio.lowlevel.checkpoint()
            with trio.move_on_after(FAREWELL_TIME):
                while whole and (data := core.data_to_send(trio.current_time(), WRITE_SIZE)):
                    await self.transport.send_all(data)
        except LOST as exc:
            # What the peer said before it left is still to be read.
            with trio.move_on_after(FAREWELL_TIME):
                await self._read_done.wait()
            self._lose(exc.__cause__ or exc)

    async def _end(self) -> None:
        """End the transport, having read to the peer's end.

        A close with unread input would reset the connection, and destroy what the peer has
        not read yet.
        """
        transport = self.transport
        self.core.end_output()
        if isinstance(transport, trio.SSLStream) and not self.core.eof_received:
            self._reading.cancel()
            await self._read_done.wait()
            await _end_tls(transport)
        elif isinstance(transport, trio.abc.HalfCloseableStream):
            await transport.send_eof()
            while not (self.core.eof_received or self.core.abort_transport or self.lost):
                self._bell = trio.Event()
                await self._bell.wait()
        else:
            self._reading.cancel()
            await transport.aclose()

    def _lose(self, exc: BaseException | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.core.connection_lost(exc, trio.current_time())
        self._sending.cancel()
        self.settle()
        self._notify(0)


class Dry(trio.abc.Stream):
    """A transport of which nothing more comes in, for the time of `drain`."""

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


async def drain(secured: trio.SSLStream[trio.abc.Stream]) -> None:
    """Throw away what TLS has taken in and not decrypted yet."""
    transport = secured.transport_stream
    secured.transport_stream = Dry(transport)
    try:
        while await secured.receive_some(READ_SIZE):
            pass
    except Dry.Over:
        pass
    finally:
        secured.transport_stream = transport


async def _end_tls(secured: trio.SSLStream[trio.abc.Stream]) -> None:
    """Send TLS's farewell and the end, and read to the peer's, which nobody decrypts."""
    transport = secured.transport_stream
    try:
        with contextlib.suppress(trio.BrokenResourceError):  # for the peer, which goes on sending
            # Data in front of the peer's farewell is an error, which keeps ours from being sent.
            await drain(secured)
            await secured.unwrap()
        if isinstance(transport, trio.abc.HalfCloseableStream):
            await transport.send_eof()
        while await transport.receive_some(READ_SIZE):
            pass
    finally:
        await trio.aclose_forcefully(transport)


def _ignore(events: int) -> None:
    pass
