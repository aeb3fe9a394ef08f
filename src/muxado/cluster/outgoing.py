"""A caller's stream on its way to a name: until the way is found, and then as a relay.

There is no task: callbacks take a peer's verdict, and what comes after it is passed on by a relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..asyncio import Stream
from ..asyncio.relaying import StreamRelay
from ..base_stream import give_up
from ..errors import ErrorCode, MuxadoError
from ..relaying import RelayResult

__all__ = ["Asking", "Passing"]


class Passing:
    """A stream that is passed on to a name, or is about to be. `Node.pass_on` makes it.

    Attributes:
        stream: the caller's stream.
    """

    __slots__ = ("_done", "_failure", "_on_end", "_relay", "_stop", "_waiter", "stream")

    def __init__(self, stream: Stream, on_end: Callable[[Passing], object] | None) -> None:
        """Not for users."""
        self.stream: Stream = stream
        self._on_end = on_end
        self._stop: Callable[[], object] | None = None
        self._relay: StreamRelay | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._done = False

    @property
    def failure(self) -> Exception | None:
        """What `Node.open` would have raised, if the stream did not get there; else None."""
        return self._failure

    @property
    def result(self) -> RelayResult | None:
        """How the relay went; None until it is over, and where it never began."""
        return None if self._relay is None else self._relay.result

    def cancel(self) -> None:
        """Reset the stream, and the one that it is passed on to. Harmless if it is over."""
        if self._relay is not None:
            self._relay.cancel()
            return
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
        self.fail(None)

    async def wait_closed(self) -> RelayResult | None:
        """Wait until it is over; cancelling that changes nothing.

        Returns:
            how the relay went; None if it was cancelled before it began.

        Raises:
            Exception: what `Node.open` raises, if the stream did not get there.
        """
        while not self._done:
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)
        if self._failure is not None:
            raise self._failure
        return self.result

    # For the finder

    def cancel_search(self) -> None:
        """Look for the way no more: the caller's stream is over."""
        if self._relay is None:
            self.cancel()

    def look(self, stop: Callable[[], object]) -> None:
        """Take note that the way is looked for, which a function ends."""
        self._stop = stop

    def found(self, other: Stream) -> None:
        """Pass the stream on to another one."""
        self._stop = None
        if self._done:
            give_up(other, ErrorCode.STREAM_CANCELLED)
            return
        self._relay = StreamRelay(self.stream, other, on_end=self._is_over)
        self._relay.start()

    def fail(self, failure: Exception | None) -> None:
        """Reset the stream, which does not get there; None if that is asked for."""
        if self._done:
            return
        self._stop = None
        self._failure = failure
        give_up(self.stream, _code_of(failure))
        self._is_over(None)

    def _is_over(self, _: RelayResult | None) -> None:
        self._done = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)


def _code_of(failure: Exception | None) -> int:
    """Return what a stream is reset with that did not get there."""
    if failure is None:
        return ErrorCode.STREAM_CANCELLED
    if isinstance(failure, MuxadoError):
        return failure.code
    return ErrorCode.REMOTE_GONE_AWAY  # it took too long


class Asking:
    """A stream that was opened with a peer, until the verdict has come.

    Args:
        stream: the stream; its header was written.
        told: called with the verdict; with None if none came.
        timeout: seconds for it.
    """

    __slots__ = ("_stream", "_timer", "_told")

    def __init__(
        self, stream: Stream, told: Callable[[int | None], object], timeout: float
    ) -> None:
        self._stream = stream
        self._told = told
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(timeout, self._tell, None)
        self._read()

    def cancel(self) -> None:
        """Give the stream up; nothing is told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)

    def _read(self) -> None:
        if self._timer is None:
            return
        try:
            data = self._stream.read_nowait(1, self._read)
        except MuxadoError:
            data = b""
        if data is not None:
            self._tell(data[0] if data else None)

    def _tell(self, verdict: int | None) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._told(verdict)
