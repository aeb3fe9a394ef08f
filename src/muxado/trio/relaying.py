"""`relay`: passes on between a stream and any other stream of trio's.

How it works. The calling task passes on what the stream has, and one more task what the other side
has. Each ends with its direction. What cuts the relay is noted, and cancels both; then the sides
that can still be told are reset. A reset that comes while nothing is read from a stream is told by
its `on_end`.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Final

import trio

from ..base_stream import give_up
from ..errors import ErrorCode, MuxadoError
from ..relaying import (
    LINGER,
    PIECE,
    RelayRecord,
    RelayResult,
    arm_reset,
    code_of_loss,
    code_of_reset,
    reads_no_more,
)
from .stream import Stream

__all__ = ["relay"]

# What a stream raises once it has ended otherwise than by its end.
LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class StreamRelay(RelayRecord):
    """Passes on between a stream and another one, in `run`."""

    def __init__(
        self,
        stream: Stream,
        other: trio.abc.Stream,
        idle_timeout: float | None,
        half_closed_timeout: float | None,
    ) -> None:
        super().__init__(idle_timeout, half_closed_timeout)
        self._stream = stream
        self._other = other
        self._scope = trio.CancelScope()  # of all of it
        self._inner = trio.CancelScope()  # of both directions
        self._dropping = False  # what comes from the other side
        self._in_order = False  # both sides were told their ends
        self._whole = False  # what the stream has got is, though its other direction was lost

    async def run(self) -> RelayResult:
        """Pass on until it is over."""
        try:
            with self._scope:
                self._changed()
                self._stream.on_end(self._stream_is_over)
                if isinstance(self._other, Stream):
                    self._other.on_end(self._other_is_over)
                with self._inner:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._to_stream)
                        await self._from_stream()
                if self.ended is None:
                    await self._end_in_order()
            if self.ended is None:
                self._time_is_up()
        except BaseException:
            self._end("cancelled", code=ErrorCode.STREAM_CANCELLED)
            raise
        finally:
            if not self._in_order:
                self._cut()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._other)
        return self._make_result()

    async def _to_stream(self) -> None:
        """Pass on what the other side has."""
        while True:
            try:
                data = await self._other.receive_some(PIECE)
            except Exception as exc:
                self._other_failed(exc)
                return
            if not data:
                break
            if not self._dropping:
                self._came_for_stream(len(data))
                self._changed()
                try:
                    await self._stream.send_all(data)
                except LOST as exc:
                    self._stream_failed(exc)
        self._input_has_ended()
        self._changed()
        if not self._dropping:
            with suppress(*LOST):  # it says so itself
                await self._stream.send_eof()

    async def _from_stream(self) -> None:
        """Pass on what the stream has."""
        while True:
            try:
                data = await self._stream.receive_some(PIECE)
            except LOST as exc:
                self._stream_failed(exc, reading=True)
                return
            if not data:
                break
            self._came_from_stream(len(data))
            self._changed()
            try:
                await self._other.send_all(data)
            except Exception as exc:
                self._other_failed(exc)
                return
        self._output_has_ended()
        self._changed()
        if isinstance(self._other, trio.abc.HalfCloseableStream):
            try:
                await self._other.send_eof()
            except Exception as exc:
                self._other_failed(exc)
        elif self._dropping:
            self._inner.cancel()  # over TLS, say, the end is that of both directions

    async def _end_in_order(self) -> None:
        """Wait until the last bytes have left, and close both sides."""
        if not self._dropping:
            with suppress(*LOST):
                await self._stream.wait_reset()
        failure = self._stream.failure()
        if failure is None:
            ended = self._end("end")
        elif reads_no_more(failure):
            ended = self._end("stream", failure, code_of_reset(failure))
        else:
            self._end("stream", failure, code_of_reset(failure))
            return
        if ended:
            self._in_order = True
            self._stream.close()
            with suppress(*LOST):
                await self._other.aclose()

    # Time

    def _changed(self) -> None:
        """Set the time at which the relay is given up."""
        now = trio.current_time()
        if self._dropping and self.output_ended:
            self._scope.deadline = min(self._scope.deadline, now + LINGER)
        elif self._has_timeouts():
            # A record's clock is the system's; trio's may be a test's.
            self._scope.deadline = now + self._deadline() - monotonic()

    def _time_is_up(self) -> None:
        failure = self._stream.failure()
        if self._dropping and self.output_ended:
            self._end("stream", failure, None if failure is None else code_of_reset(failure))
        else:
            ended = self._overdue(self._deadline())
            assert ended is not None
            self._end(ended, code=ErrorCode.STREAM_CANCELLED)

    # What cuts it

    def _stream_is_over(self) -> None:
        failure = self._stream.failure()
        if failure is not None:
            self._note(failure)

    def _stream_failed(self, exc: Exception, *, reading: bool = False) -> None:
        cause = exc.__cause__
        assert isinstance(cause, MuxadoError)
        self._note(cause, reading=reading)

    def _note(self, failure: MuxadoError, *, reading: bool = False) -> None:
        """Note how the stream has failed."""
        if reads_no_more(failure) and not reading:
            # What it has unread comes first, and perhaps its end.
            self._dropping = True
            self._changed()
            if self.output_ended and not isinstance(self._other, trio.abc.HalfCloseableStream):
                self._inner.cancel()
        elif self._end("stream", failure, code_of_reset(failure)):
            self._scope.cancel()

    def _other_is_over(self) -> None:
        assert isinstance(self._other, Stream)
        failure = self._other.failure()
        # Where its peer reads no more, what is unread comes first, and perhaps its end.
        if failure is not None and (self.input_ended or not reads_no_more(failure)):
            self._note_other(failure)

    def _other_failed(self, exc: Exception) -> None:
        self._note_other(exc.__cause__ or exc)

    def _note_other(self, cause: BaseException) -> None:
        """Note how the other side has failed."""
        if self._dropping and self.output_ended:
            self._inner.cancel()  # nothing more was wanted of it
            return
        if isinstance(cause, MuxadoError):
            self._whole = self.input_ended and reads_no_more(cause)
        code = code_of_reset(cause)
        if self._end("other", cause, code_of_loss(cause) if code is None else code):
            self._scope.cancel()

    def _cut(self) -> None:
        """Reset what was not reset by its peer."""
        code = ErrorCode.STREAM_RESET if self._code is None else self._code
        if self._whole:
            self._stream.close()
        else:
            if self.ended != "stream" and not self._stream.tells_resets:
                self._lose_reset()
            give_up(self._stream, code)
        told = False
        if isinstance(self._other, Stream):
            told = self._other.tells_resets
            give_up(self._other, code)
        else:
            under = self._other
            while isinstance(under, trio.SSLStream):
                under = under.transport_stream
            told = arm_reset(under.socket if isinstance(under, trio.SocketStream) else None)
        if self.ended != "other" and not told:
            self._lose_reset()


async def relay(
    stream: Stream,
    other: trio.abc.Stream,
    *,
    idle_timeout: float | None = None,
    half_closed_timeout: float | None = None,
) -> RelayResult:
    """Pass on between a stream and another one, until both are through.

    It passes on end for end and reset for reset, both ways, with one task besides the one that
    calls it. It begins with what is unread, and reads no more of either side than the other one
    takes. Both belong to it from then on, and are closed when it returns. Cancelled, it resets
    both.

    Args:
        stream: the stream.
        other: any stream of trio's: a `SocketStream`, an `SSLStream`, a `StapledStream` of two
            pipes, or another `muxado.trio.Stream`. A `SocketStream`, with or without TLS, and a
            stream can be told a reset.
        idle_timeout: seconds without a byte either way, after which both are reset. None: no
            limit.
        half_closed_timeout: the same for when one side has said its end and the other has not.

    Returns:
        how it went, also if one of them was reset or lost.

    Raises:
        UsageError: a timeout is not above 0.
    """
    return await StreamRelay(stream, other, idle_timeout, half_closed_timeout).run()
