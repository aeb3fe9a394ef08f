"""Passes on what comes between a stream and a transport, in callbacks alone.

How it works. `Relay` is the protocol of a transport. What the transport reads, it queues on the
stream at once (`data_received`); once the stream takes no more, it pauses the transport, inside the
callback, since uvloop reads on until then. What the stream has, it writes to the transport
(`_pass_on`), until the transport asks for a pause. All of it runs in callbacks: an idle relay has
left one callback with its stream, and nothing with the loop.

The stream calls back when there is something to read. While nothing is read from it, because its
peer has said its end or the transport is paused, a reset would go unnoticed; so the relay then
watches for the end of its stream too (`_watch`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic

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

__all__ = ["BaseRelay", "Relay"]

Transport = asyncio.Transport


class BaseRelay(RelayRecord):
    """What all relays of this front end share: timeouts, the end, and who waits for it."""

    __slots__ = ("_loop", "_on_end", "_result", "_stream", "_timer", "_waiters")

    def __init__(
        self,
        stream: Stream,
        idle_timeout: float | None,
        half_closed_timeout: float | None,
        on_end: Callable[[RelayResult], object] | None = None,
    ) -> None:
        super().__init__(idle_timeout, half_closed_timeout)
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._result: RelayResult | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._set_timer()

    @property
    def stream(self) -> Stream:
        """The stream."""
        return self._stream

    @property
    def result(self) -> RelayResult | None:
        """How it went; None until it is over."""
        return self._result

    def cancel(self) -> None:
        """Reset both sides. Harmless if it is over."""
        if self._end("cancelled", code=ErrorCode.STREAM_CANCELLED):
            self._cut(ErrorCode.STREAM_CANCELLED)

    async def wait_closed(self) -> RelayResult:
        """Wait until it is over, and return how it went. Cancelling that changes nothing."""
        while self._result is None:
            waiter = self._loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter
        return self._result

    def _cut(self, code: int) -> None:
        """Reset both sides, the stream with a code if it is still there."""
        raise NotImplementedError

    def _reset_stream(self, code: int) -> None:
        """Reset the stream, for another reason than its own."""
        if not self._stream.tells_resets:
            self._lose_reset()
        give_up(self._stream, code)

    def _over(self) -> None:
        """Tell that both sides are through, or cut."""
        if self._result is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._result = self._make_result()
        if self._waiters is not None:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters = None
        if self._on_end is not None:
            self._loop.call_soon(self._on_end, self._result)
            self._on_end = None

    def _set_timer(self) -> None:
        """Have the timeouts looked at when the first of them can be up."""
        if not self._has_timeouts() or self._result is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self._deadline() - monotonic())
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        ended = self._overdue(monotonic())
        if ended is None:
            self._set_timer()
        elif self._end(ended, code=ErrorCode.STREAM_CANCELLED):
            self._cut(ErrorCode.STREAM_CANCELLED)


class Relay(BaseRelay, asyncio.Protocol):
    """Passes on between a stream and a transport: end for end, reset for reset, both ways.

    It is a protocol, to hand to `loop.create_connection`, `create_server`, `create_unix_connection`
    and the like, one for each connection. It needs no task and no future. It begins with what the
    stream has unread, and reads no more of either side than the other one takes. A connection that
    can't be told a reset is ended at once (`RelayResult.reset_lost`).

    A relay that was made owns its stream: nothing else may read, write or close it.

    Args:
        stream: the stream.
        idle_timeout: seconds without a byte either way, after which both sides are reset. None:
            no limit.
        half_closed_timeout: the same for when one side has said its end and the other has not.
        on_end: called by the event loop with the `RelayResult`, when the relay is over.

    Raises:
        UsageError: a timeout is not above 0.
        RuntimeError: no event loop is running.

    Attributes:
        to_stream: bytes that went into the stream, so far.
        from_stream: bytes that came out of it, so far.
        input_ended: True once the other side has said its end, and it was passed on.
        output_ended: True once the stream's peer has said its end.
        ended: how the relay ended, as in `RelayResult`; None while it runs.
    """

    __slots__ = (
        "_discarding",
        "_eof_came",
        "_pending",
        "_reading_paused",
        "_stream_over",
        "_takes_no_more",
        "_transport",
        "_unwanted",
        "_watching",
        "_writing_paused",
    )

    def __init__(
        self,
        stream: Stream,
        *,
        idle_timeout: float | None = None,
        half_closed_timeout: float | None = None,
        on_end: Callable[[RelayResult], object] | None = None,
    ) -> None:
        super().__init__(stream, idle_timeout, half_closed_timeout, on_end)
        self._transport: Transport | None = None
        self._pending: deque[bytes] | None = None  # what came, and the stream has not taken
        self._eof_came = False  # from the transport; it follows what is pending
        self._takes_no_more = False  # the transport takes nothing more, but was not cut
        self._unwanted = False  # what comes is dropped, while an answer is still passed on
        self._discarding = False  # what comes from the transport is dropped
        self._reading_paused = False
        self._writing_paused = False
        self._watching = False  # the end of the stream
        self._stream_over = False

    # For the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to pass on."""
        assert hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's derive from nothing
        if self.ended is None:
            self._pass_on()
        else:
            self._abort()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the stream."""
        if self.ended is not None or self._discarding or self._unwanted:
            return
        self._came_for_stream(len(data))
        stream = self._stream
        try:
            if self._pending is not None:
                self._pending.append(data)
            elif not stream.write_nowait(data, self._go_on):
                self._pending = deque((data,))
                self._pause_reading()
            elif not stream.write_nowait(b"", self._go_on):
                self._pause_reading()
        except MuxadoError as exc:
            self._write_failed(exc)

    def eof_received(self) -> bool:
        """Pass the end on to the stream."""
        transport = self._transport
        secured = None if transport is None else transport.get_extra_info("ssl_object")
        if self._discarding:
            self._give_up_stream()
        elif self.ended is None:
            if secured is not None and not _said_its_end(secured):
                self._other_failed(ssl.SSLEOFError("TLS ended without its close_notify"))
            else:
                self._eof_came = True
                # TLS of event loops closes both directions then: it takes nothing more.
                self._takes_no_more = secured is not None
                if self._pending is None:
                    self._pass_end_on()
                if self._takes_no_more:
                    self._pass_on()
        return secured is None

    def pause_writing(self) -> None:
        """Read the stream no more, until the transport takes more."""
        self._writing_paused = True
        self._watch()

    def resume_writing(self) -> None:
        """Read the stream again."""
        self._writing_paused = False
        # In the next turn, since asyncio is inside its own write now, and a connection that
        # proves lost there would be reported lost twice.
        self._loop.call_soon(self._pass_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the transport is gone."""
        self._transport = None
        if self.ended is None and not self._discarding:
            if exc is None and self._eof_came:
                self._takes_no_more = True
                self._pass_on()
            else:
                self._other_failed(exc)
        elif self._discarding:
            self._end_with_stream()
        self._look()

    # From the stream

    def _pass_on(self) -> None:
        """Pass on what the stream has, as far as the transport takes it."""
        stream = self._stream
        transport = self._transport
        try:
            while self.ended is None and not self.output_ended:
                if not self._takes_no_more and (
                    self._writing_paused or transport is None or transport.is_closing()
                ):
                    return
                data = stream.read_nowait(PIECE, self._pass_on)
                if data is None:
                    return
                if not data:
                    self._pass_stream_end_on()
                    return
                self._came_from_stream(len(data))
                if self._takes_no_more:
                    self._other_failed(BrokenPipeError("the other side takes nothing more"))
                    return
                assert transport is not None
                transport.write(data)
        except MuxadoError as exc:
            self._stream_failed(exc)

    def _pass_stream_end_on(self) -> None:
        self._output_has_ended()
        transport = self._transport
        if self.input_ended:
            if transport is not None:
                transport.close()  # once all is written
        elif transport is not None and not self._takes_no_more and transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                return  # it is being lost, and says so soon
        self._watch()
        failure = self._stream.failure() if self._stream_over else None
        if failure is not None:
            self._stream_failed(failure)
            return
        self._set_timer()
        self._look()

    def _watch(self) -> None:
        """Hear of the stream's end, also while nothing is read from it."""
        if not self._watching:
            self._watching = True
            self._stream.on_end(self._stream_is_over)

    def _stream_is_over(self) -> None:
        self._stream_over = True
        failure = self._stream.failure()
        if failure is None or self.ended is not None:
            self._look()
        elif self.output_ended or not reads_no_more(failure):
            self._stream_failed(failure)
        # else what it has unread comes first, and perhaps its end

    def _stream_failed(self, exc: MuxadoError) -> None:
        """Reset the connection, as the stream was; but not if its answer is whole."""
        if self.output_ended and reads_no_more(exc):
            self._discard()
        elif self._end("stream", exc, code_of_reset(exc)):
            # It may be another error than a reset.
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)
            self._abort()
            self._look()

    # To the stream

    def _go_on(self) -> None:
        """Pass on what is pending, and have more come; the stream has room again."""
        stream = self._stream
        pending = self._pending
        if self.ended is not None or self._discarding:
            return
        try:
            while pending:
                if not stream.write_nowait(pending[0], self._go_on):
                    return
                pending.popleft()
            self._pending = None
            if self._eof_came:
                self._pass_end_on()
            elif stream.write_nowait(b"", self._go_on):
                self._resume_reading()
        except MuxadoError as exc:
            self._write_failed(exc)

    def _write_failed(self, exc: MuxadoError) -> None:
        """Drop what comes for a peer that reads no more, until its answer is passed on."""
        if self.output_ended or not reads_no_more(exc):
            self._stream_failed(exc)
            return
        self._unwanted = True
        self._pending = None
        if self._eof_came:
            self._pass_end_on()
        else:
            self._resume_reading()

    def _pass_end_on(self) -> None:
        if self.input_ended:
            return
        self._stream.write_eof()
        self._input_has_ended()
        if self.output_ended and self._transport is not None:
            self._transport.close()
        if self.output_ended:
            self._watch()
        self._set_timer()
        self._look()

    def _other_failed(self, exc: BaseException | None) -> None:
        """Reset the stream, as the connection was."""
        code = code_of_loss(exc)
        if exc is not None:
            exc.__traceback__ = None  # its frames keep the transport
        if self._end("other", exc, code):
            self._reset_stream(code)
            self._abort()
            self._look()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    # Ending

    def _discard(self) -> None:
        """Drop what comes for a stream whose peer has answered, and reads no more.

        A close with unread input would reset the connection, and destroy what its other end has
        not read yet of the answer.
        """
        if self._discarding or self.ended is not None:
            return
        self._discarding = True
        self._pending = None
        transport = self._transport
        if self._timer is not None:
            self._timer.cancel()
        if transport is None or self._eof_came or not transport.can_write_eof():
            self._give_up_stream()
            return
        self._resume_reading()
        self._timer = self._loop.call_later(LINGER, self._stop_discarding)

    def _stop_discarding(self) -> None:
        self._timer = None
        self._end_with_stream()
        self._abort()

    def _give_up_stream(self) -> None:
        """End in order on the other side, whose end has come too."""
        self._end_with_stream()
        if self._transport is not None:
            self._transport.close()
        self._look()

    def _end_with_stream(self) -> None:
        failure = self._stream.failure()
        if self._end("stream", failure, None if failure is None else code_of_reset(failure)):
            give_up(self._stream, ErrorCode.STREAM_CANCELLED)

    def _cut(self, code: int) -> None:
        self._reset_stream(code)
        self._abort()
        self._look()

    def _abort(self) -> None:
        """End the connection at once, by a reset where there is one."""
        transport = self._transport
        if transport is None:
            return
        if not arm_reset(transport.get_extra_info("socket")):
            self._lose_reset()
        transport.abort()

    def _look(self) -> None:
        """See whether both sides are through, or cut."""
        if self._transport is not None:
            return
        if self.ended is None:
            if not self._stream_over or not (self.input_ended and self.output_ended):
                return
            failure = self._stream.failure()
            if failure is None:
                self._end("end")
                self._stream.close()
            else:
                self._end_with_stream()
        self._over()


def _said_its_end(secured: ssl.SSLObject) -> bool:
    """Return whether TLS has ended with its close_notify, without which it was cut."""
    try:
        return not secured.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
