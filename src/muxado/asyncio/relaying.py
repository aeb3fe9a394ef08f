"""`relay`, and what it passes on between besides transports: two streams, any reader and writer.

`transport_relay.py` has the relay of a transport. That of two streams runs in the callbacks of
both. Readers and writers that are no transport have a task for each direction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ..base_stream import give_up
from ..errors import ErrorCode, MuxadoError
from ..relaying import PIECE, RelayResult, arm_reset, code_of_loss, code_of_reset, reads_no_more
from .links import Reader, Writer, take_over, transport_under
from .stream import Stream
from .transport_relay import BaseRelay, Relay

__all__ = ["relay"]


class StreamRelay(BaseRelay):
    """Passes on between two streams, of one session or of two.

    A stream that is read tells by that of its reset. Once it has said its end, or while the other
    one takes nothing, it is not read, and its end is watched instead.
    """

    __slots__ = ("_other", "_over_count", "_watches_other", "_watches_stream")

    def __init__(
        self,
        stream: Stream,
        other: Stream,
        idle_timeout: float | None = None,
        half_closed_timeout: float | None = None,
        on_end: Callable[[RelayResult], object] | None = None,
    ) -> None:
        super().__init__(stream, idle_timeout, half_closed_timeout, on_end)
        self._other = other
        self._over_count = 0  # how many of the two streams are over
        self._watches_stream = False
        self._watches_other = False

    def start(self) -> None:
        """Begin to pass on."""
        self._to_other()
        self._to_stream()

    def _to_other(self) -> None:
        """Pass on what the stream has."""
        if not self.output_ended and self._pass(self._stream, self._other, self._to_other):
            self._output_has_ended()
            self._watch_stream()
            self._set_timer()
            self._look()

    def _to_stream(self) -> None:
        """Pass on what the other stream has."""
        if not self.input_ended and self._pass(self._other, self._stream, self._to_stream):
            self._input_has_ended()
            self._watch_other()
            self._set_timer()
            self._look()

    def _pass(self, source: Stream, target: Stream, again: Callable[[], None]) -> bool:
        """Pass on what one stream has, as far as the other takes it; return whether it has ended.

        Args:
            source: the stream that is read.
            target: the one that is written.
            again: called when it may go on.
        """
        while self.ended is None:
            try:
                if not target.write_nowait(b"", again):
                    if source is self._stream:
                        self._watch_stream()
                    else:
                        self._watch_other()
                    return False
            except MuxadoError as exc:
                self._failed(target, exc)
                return False
            try:
                data = source.read_nowait(PIECE, again)
            except MuxadoError as exc:
                self._failed(source, exc)
                return False
            if data is None:
                return False
            if data:
                if source is self._stream:
                    self._came_from_stream(len(data))
                else:
                    self._came_for_stream(len(data))
                target.write_nowait(data)
            if not data or source.at_eof():
                target.write_eof()
                return True
        return False

    def _watch_stream(self) -> None:
        if not self._watches_stream:
            self._watches_stream = True
            self._stream.on_end(self._stream_is_over)

    def _watch_other(self) -> None:
        if not self._watches_other:
            self._watches_other = True
            self._other.on_end(self._other_is_over)

    def _stream_is_over(self) -> None:
        self._one_is_over(self._stream, self.output_ended)

    def _other_is_over(self) -> None:
        self._one_is_over(self._other, self.input_ended)

    def _one_is_over(self, stream: Stream, end_passed_on: bool) -> None:
        self._over_count += 1
        failure = stream.failure()
        # Where its peer reads no more, what is unread comes first, and perhaps its end.
        if failure is not None and (end_passed_on or not reads_no_more(failure)):
            self._failed(stream, failure)
        self._look()

    def _failed(self, stream: Stream, exc: MuxadoError) -> None:
        """Reset one stream as the other was, or close it, if the other's answer is whole."""
        first = stream is self._stream
        whole = (self.output_ended if first else self.input_ended) and reads_no_more(exc)
        code = code_of_reset(exc)
        if code is None:
            code = ErrorCode.STREAM_RESET
        if not self._end("stream" if first else "other", exc, code):
            return
        give_up(stream, code)
        target = self._other if first else self._stream
        if whole:
            target.close()
        else:
            self._reset(target, code)
        self._over()

    def _cut(self, code: int) -> None:
        self._reset(self._stream, code)
        self._reset(self._other, code)
        self._over()

    def _reset(self, stream: Stream, code: int) -> None:
        if not stream.tells_resets:
            self._lose_reset()
        give_up(stream, code)

    def _look(self) -> None:
        if self.ended is None and self.input_ended and self.output_ended and self._over_count == 2:
            self._end("end")
            self._stream.close()
            self._other.close()
            self._over()


class PairRelay(BaseRelay):
    """Passes on between a stream and any reader and writer, with a task for each direction."""

    __slots__ = ("_reader", "_tasks", "_writer")

    def __init__(
        self,
        stream: Stream,
        reader: Reader,
        writer: Writer,
        idle_timeout: float | None,
        half_closed_timeout: float | None,
    ) -> None:
        super().__init__(stream, idle_timeout, half_closed_timeout)
        self._reader = reader
        self._writer = writer
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to pass on."""
        for work in (self._to_stream(), self._from_stream()):
            task = self._loop.create_task(work, name=f"muxado relay of stream {self._stream.id}")
            self._tasks.append(task)
            task.add_done_callback(self._look)

    async def _to_stream(self) -> None:
        stream = self._stream
        while True:
            try:
                data = await self._reader.read(PIECE)
            except Exception as exc:
                self._other_failed(exc)
                return
            try:
                if not data:
                    stream.write_eof()
                    break
                self._came_for_stream(len(data))
                await stream.write(data)
            except MuxadoError as exc:
                if not (self.output_ended and reads_no_more(exc)):
                    self._stream_failed(exc)
                return
        self._input_has_ended()
        self._set_timer()

    async def _from_stream(self) -> None:
        stream = self._stream
        writer = self._writer
        while True:
            try:
                data = await stream.read(PIECE)
            except MuxadoError as exc:
                self._stream_failed(exc)
                return
            try:
                if not data:
                    self._end_writer()
                    break
                self._came_from_stream(len(data))
                writer.write(data)
                await writer.drain()
            except Exception as exc:
                self._other_failed(exc)
                return
        self._output_has_ended()
        self._set_timer()
        try:
            code = await stream.wait_reset()
        except MuxadoError as exc:
            self._stream_failed(exc)
            return
        failure = stream.failure()
        if failure is not None:
            assert code is not None
            if reads_no_more(failure):
                self._end("stream", failure, code)
                self._stop()
            else:
                self._stream_failed(failure)

    def _end_writer(self) -> None:
        can_write_eof = getattr(self._writer, "can_write_eof", None)
        if can_write_eof is not None and can_write_eof():
            self._writer.write_eof()  # type: ignore[attr-defined]
        else:
            self._writer.close()

    def _stream_failed(self, exc: MuxadoError) -> None:
        if self._end("stream", exc, code_of_reset(exc)):
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)
            self._abort()

    def _other_failed(self, exc: BaseException) -> None:
        code = code_of_loss(exc)
        if self._end("other", exc, code):
            self._reset_stream(code)
            self._abort()

    def _cut(self, code: int) -> None:
        self._reset_stream(code)
        self._abort()

    def _abort(self) -> None:
        """End the reader and the writer at once, by a reset where there is one."""
        sock = None
        get = getattr(self._writer, "get_extra_info", None)
        if get is not None:
            sock = get("socket")
        if not arm_reset(sock):
            self._lose_reset()
        transport = getattr(self._writer, "transport", None)
        if transport is not None:
            transport.abort()
        self._stop()

    def _stop(self) -> None:
        """End both tasks."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _look(self, _: object) -> None:
        if not all(task.done() for task in self._tasks) or len(self._tasks) < 2:
            return
        if self._end("end"):
            self._stream.close()
        with contextlib.suppress(Exception):
            self._writer.close()
        self._over()


async def relay(
    stream: Stream,
    other: Stream | tuple[Reader, Writer],
    *,
    idle_timeout: float | None = None,
    half_closed_timeout: float | None = None,
) -> RelayResult:
    """Pass on between a stream and something else, until both are through.

    It passes on end for end and reset for reset, both ways. It begins with what is unread, and
    reads no more of either side than the other one takes. Both belong to it from then on, and are
    closed when it returns. Cancelled, it resets both.

    Args:
        stream: the stream.
        other: another stream; or a reader and a writer, as `asyncio.open_connection` gives them,
            whose transport is taken over. Any other pair with `read`, `write`, `drain` and `close`
            (a subprocess's two pipes, say) has a task for each direction.
        idle_timeout: seconds without a byte either way, after which both are reset. None: no
            limit.
        half_closed_timeout: the same for when one side has said its end and the other has not.

    Returns:
        how it went, also if one of them was reset or lost.

    Raises:
        UsageError: a timeout is not above 0.
    """
    passing: BaseRelay
    if isinstance(other, Stream):
        between = StreamRelay(stream, other, idle_timeout, half_closed_timeout)
        between.start()
        passing = between
    else:
        reader, writer = other
        transport = transport_under(reader, writer)
        if transport is not None and not transport.is_closing():
            former = transport.get_protocol()
            taking = Relay(
                stream, idle_timeout=idle_timeout, half_closed_timeout=half_closed_timeout
            )
            take_over(taking, reader, transport, taking.data_received)
            try:
                return await _finish(taking)
            finally:
                # Wake the tasks that wait in the writer's `wait_closed`.
                former.connection_lost(None)
        pumped = PairRelay(stream, reader, writer, idle_timeout, half_closed_timeout)
        pumped.start()
        passing = pumped
    return await _finish(passing)


async def _finish(passing: BaseRelay) -> RelayResult:
    try:
        return await passing.wait_closed()
    except BaseException:
        passing.cancel()
        raise
