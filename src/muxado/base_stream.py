"""What the streams of all front ends share: looking, and the calls that never wait."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .core import CLOSED, STREAM_STATES, CoreStream
from .errors import ErrorCode, MuxadoError, StreamRefused
from .front_end import call_logged

if TYPE_CHECKING:
    from .base_session import BaseSession

SessionT = TypeVar("SessionT", bound="BaseSession[Any]")


class BaseStream(Generic[SessionT]):
    """What the streams of all front ends share."""

    __slots__ = ()

    _core: CoreStream
    _session: SessionT

    def __repr__(self) -> str:
        core = self._core
        kind = "" if core.type is None else f" type={core.type:#x}"
        return (
            f"<Stream {core.stream_id}{kind} {STREAM_STATES[core.state]}"
            f" unread={core.unread()} queued={core.queued()}>"
        )

    @property
    def id(self) -> int:
        """The stream's number, odd if the session's client opened it and even if the server did."""
        return self._core.stream_id

    @property
    def type(self) -> int | None:
        """The stream's 32-bit type, None where streams have none.

        They have one in a session with `Config.typed`, and on the wire of muxado v1.
        """
        return self._core.type

    @property
    def peer_priority(self) -> int | None:
        """The priority that the peer has opened the stream with, None where no wire carries one.

        Only muxado v1 does: it is a number from 0 to 2**31 - 1, 0 if the peer has said none. The
        stream's own `priority` begins with it, as far as that goes; it concerns what we send.
        """
        return self._core.peer_priority

    @property
    def session(self) -> SessionT:
        """The session that the stream belongs to."""
        return self._session

    @property
    def priority(self) -> int:
        """How urgent what we send is, from -8 to 7; higher goes first. May be set.

        A higher level goes strictly first, but a lower one that waits gets one frame in 16.

        Raises:
            UsageError: when set to something else.
        """
        return self._core.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._do(self._core.set_priority, priority)

    def readable(self) -> bool:
        """Return whether a read would return at once, with bytes, with the end, or with an error.

        An idle connection in a client's pool is not readable for as long as it can be used.
        """
        return self._core.readable()

    # Without waiting

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        """Return what has come, at most `n` bytes, without waiting.

        Args:
            n: how many at most, 1 or more.
            callback: where nothing has come, called once when a next call would have something
                to say: bytes, the end or an error. It is called soon after that by the event
                loop, or in threads by the session's own thread; it must not wait, and what it
                raises is logged. It takes the place of one that was given before.

        Returns:
            the bytes; b"" at the end of the stream; None while there is nothing.

        Raises:
            ValueError: `n` is below 1.
            StreamReset: the stream was reset, and what came before has been read.
            StreamClosed: this side has closed the stream.
            SessionError: the session ended, and what came before has been read.
            StreamBusy: a call waits to read. One that has to wait while a callback is left here
                raises it too (trio: `BusyResourceError`).
        """
        raise NotImplementedError

    def write_nowait(
        self, data: bytes | bytearray | memoryview, callback: Callable[[], object] | None = None
    ) -> bool:
        """Queue `data` if less than `Config.write_high_water` is queued, without waiting.

        Args:
            data: `bytes` are kept by reference; anything else is copied. If it is empty, this
                only tells whether something would be taken.
            callback: where nothing is taken, called once when a next call would take something
                or raise; as for `read_nowait`.

        Returns:
            True if all of it was taken, False if none of it was.

        Raises:
            StreamClosed: this side has ended its output.
            StreamReset: the stream was reset.
            SessionError: the session has ended.
            StreamBusy: a call waits to write. One that has to wait while a callback is left here
                raises it too (trio: `BusyResourceError`).
        """
        raise NotImplementedError

    def on_end(self, callback: Callable[[], object]) -> None:
        """Have a function called once when the stream is over; soon, if it is over already.

        It is over when both ends are through, when it was reset, and when its session has ended.

        Args:
            callback: called without arguments, as those of `read_nowait`.
        """
        self._do(self._watch_end, callback)

    @property
    def refused(self) -> bool:
        """Whether the peer has refused the stream unseen, so that another one may be tried.

        Calls raise `StreamRefused` then. Once this side has closed or reset it, it is False.
        """
        core = self._core
        return core.reset_code >= 0 and isinstance(core.failure(), StreamRefused)

    def failure(self) -> MuxadoError | None:
        """Return what ended the stream before both its ends were through; None if nothing did.

        So it is None too while the stream is open.
        """
        core = self._core
        if core.state != CLOSED or (core.reset_code < 0 and core.eof_received and core.fin_sent):
            return None
        return core.failure()

    @property
    def tells_resets(self) -> bool:
        """True if the peer is told of a reset by this side, as on every wire but smux."""
        return self._core.tells_resets

    def is_closing(self) -> bool:
        """Return whether this side writes no more: after a half-close, a close or a reset."""
        core = self._core
        return core.fin_asked or core.closed_here or core.state == CLOSED

    def stalled(self) -> bool:
        """Return whether the peer must take some of what is queued before the rest can be sent.

        A close that waits would then wait for the peer; `reset` gives the rest up.
        """
        return self._core.stalled()

    def check_open(self) -> None:
        """Raise what calls meet once this side has ended the stream or its session.

        A half-close by this side, and whatever the peer does, raise nothing here.

        Raises:
            StreamClosed: this side has closed the stream.
            StreamReset: it was reset before that.
            SessionError: this side has ended the session.
        """
        self._core.check_open()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the session's connection says: `peername`, `sockname`, `peercert` ...

        `socket` is always None: an option set on it would concern every stream.
        """
        if name == "socket":
            return None
        return self._session.get_extra_info(name, default)

    def reset(self, code: int = ErrorCode.STREAM_CANCELLED) -> None:
        """End both directions at once; what is queued is dropped. Harmless if repeated.

        Args:
            code: what the peer is told, any 32-bit number; see `ErrorCode`.

        Raises:
            UsageError: the code is no 32-bit number, or the wire can't tell it: yamux's resets
                carry none, so there is only the default; smux has no reset at all.
        """
        self._core.check_reset(code)
        self._do(self._core.reset, code)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        """Call a method of the core, then send and wake as its change of state requires."""
        raise NotImplementedError

    # Steps of the core's, for the calls that don't wait

    def _take_now(self, n: int, callback: Callable[[], object] | None) -> bytes | None:
        """Take bytes; if none are there, have the callback called when some are."""
        if n < 1:
            raise ValueError("n must be at least 1")
        core = self._core
        data = core.read(n)
        if data or core.eof_received:
            return data
        core.check_readable()
        core.announce()
        core.read_waiter = None if callback is None else self._waiter_for(callback)
        return None

    def _write_now(self, chunk: bytes, callback: Callable[[], object] | None) -> bool:
        """Queue bytes; if too many are queued, have the callback called when that is over."""
        core = self._core
        if core.write_full():
            core.check_writable()
            core.write_waiter = None if callback is None else self._waiter_for(callback)
            return False
        core.write(chunk)
        return True

    def _watch_end(self, callback: Callable[[], object]) -> None:
        """Have a function called when the stream is over."""
        self._core.await_end(self._waiter_for(partial(self._look_at_end, callback)))

    def _look_at_end(self, callback: Callable[[], object]) -> None:
        """Call a function if the stream is over; else the FIN has left, and it goes on waiting."""
        if self._core.state == CLOSED:
            call_logged(callback)
        else:
            self.on_end(callback)

    def _waiter_for(self, callback: Callable[[], object]) -> object:
        """Return an object, to leave with the core, that has a function called when woken."""
        raise NotImplementedError


def give_up(stream: BaseStream[Any], code: int = ErrorCode.STREAM_CANCELLED) -> None:
    """End both directions of a stream as abruptly as its wire can.

    Unlike `reset` it raises nothing where that can't tell the code, or can't reset at all.
    """
    stream._do(stream._core.reset, code)
