"""What the sessions and streams of all front ends share: the calls that never wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from .config import Config
from .core import (
    CLOSED,
    CLOSING,
    STREAM_STATES,
    CoreSession,
    CoreStream,
    SessionStats,
    StreamSnapshot,
)
from .errors import (
    CloseReason,
    ErrorCode,
    GoAway,
    MuxadoError,
    SessionError,
    StreamRefused,
    UsageError,
)
from .log import stream_log
from .registry import SessionRecord

SessionT = TypeVar("SessionT", bound="BaseSession[Any]")
logger: logging.Logger = logging.getLogger("muxado")

# Bytes that are sent by one call. What waits longer in the core still goes by its priority.
WRITE_SIZE = 64 * 1024


StreamT = TypeVar("StreamT", bound="BaseStream[Any]")


class BaseSession(Generic[StreamT]):
    """What the sessions of all front ends share."""

    _core: CoreSession
    _record: SessionRecord
    _on_draining: list[Callable[[], object]]  # what to call when it begins
    _on_stream: Callable[[StreamT], object] | None  # what takes the streams that the peer opens

    def __repr__(self) -> str:
        core = self._core
        role = "client" if core.client else "server"
        name = f" {self.name!r}" if self.name else ""
        peer = self.remote_address
        return (
            f"<Session{name} {role} {self._record.state} peer={peer!r} streams={core.live_streams}>"
        )

    # Looking

    @property
    def config(self) -> Config:
        """The session's settings."""
        return self._core.config

    @property
    def name(self) -> str:
        """What the program calls the session, "" if it has no name. May be set.

        It stands in the repr, in the log, in the metrics, and in what `muxado.sessions` tells. The
        peer does not hear of it.

        Raises:
            UsageError: when set to what is no string.
        """
        return self._record.name

    @name.setter
    def name(self, name: str) -> None:
        self._record.rename(name)

    @property
    def opened_at(self) -> float:
        """When the session was made, in seconds since the epoch, as `time.time()` counts them."""
        return self._record.opened_at

    @property
    def last_heard_at(self) -> float:
        """When bytes last came from the peer, in seconds since the epoch.

        It is `opened_at` until the first have come. An idle peer is heard of once in
        `Config.ping_interval`, unless that is None.
        """
        return self._record.last_heard_at

    @property
    def closed(self) -> bool:
        """Whether the session can't be used any more, because it is closing or has ended."""
        return self._core.state >= CLOSING

    @property
    def draining(self) -> bool:
        """Whether either side has told the other to open no more streams."""
        return self._core.draining

    @property
    def peer_goaway(self) -> GoAway | None:
        """What the peer's GOAWAY said, as ``(code, debug)``; None while none has come.

        The session may go on after it: only `open` fails then, with `PeerGone`.
        """
        return self._core.peer_goaway

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the session ended, None while it lives."""
        return self._core.reason

    @property
    def local_address(self) -> Any:
        """This end's address, as `getsockname()` gives it; None if there is none."""
        return self.get_extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The peer's address, as `getpeername()` gives it; None if there is none."""
        return self.get_extra_info("peername")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return something about the connection.

        Args:
            name: one of the names of asyncio's `BaseTransport.get_extra_info`: `peername`,
                `sockname`, `socket`; with TLS `ssl_object`, `sslcontext`, `peercert`, `cipher`,
                `compression`. Look at the socket and the TLS object; reading, writing or
                closing there breaks the session. Behind a proxy that is believed (see
                `serve(proxy_protocol=)`) `peername` is the client's, and `proxy_header` has
                what the proxy said: its `source` and `destination`.
            default: what is returned for another name, or if the connection doesn't have it.
        """
        header = self._record.proxy_header
        if header is not None:
            if name == "proxy_header":
                return header
            if name == "peername" and header.source is not None:
                return header.source
        return self._connection_info(name, default)

    def _connection_info(self, name: str, default: Any) -> Any:
        """Return what the connection itself says, as for `get_extra_info`."""
        raise NotImplementedError

    def stats(self) -> SessionStats:
        """Return a snapshot of the session's counters."""
        return self._core.stats()

    def streams(self) -> list[StreamSnapshot]:
        """Return a snapshot of each stream that is alive, in no particular order.

        It may be called from any thread, and waits for nothing.
        """
        now = self._record.now()
        return [stream.snapshot(now) for stream in self._core.list_streams()]

    # Opening

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> StreamT:
        """Open a stream, without waiting for the peer.

        The peer hears of it with the first write, the first read, or the end of the output.

        Args:
            type: the stream's 32-bit type, 0 if none is given; only with `Config.typed`, and on
                the wire of muxado v1.
            priority: how urgent what we send is, from -8 to 7; higher goes first. muxado v1's peers
                are told of one above 0.
            eager: let the peer know of the stream at once.

        Raises:
            UsageError: the type or the priority can't be; or with ``Config(wire="auto")`` the
                client has not said anything yet.
            SessionClosed: the session is closing, or has ended (or another `SessionError`).
            PeerGone: the peer takes no new streams: dial a new session.
            StreamsExhausted: every stream id has been used: dial a new session.
        """
        raise NotImplementedError

    # Taking

    def on_stream(self, callback: Callable[[StreamT], object] | None) -> None:
        """Have a function called with each stream that the peer opens, without a task for it.

        It is what accepts from then on: `accept`, iteration, `serve` and `create_server` (in
        threads `listener` too) raise `UsageError` meanwhile. The stream is the function's to close.
        It tells of no end of the session: `wait_closed` does.

        Args:
            callback: called by the event loop, or in threads by the session's own thread. It must
                not wait. If it raises, its stream is reset with INTERNAL_ERROR, and the exception
                is logged. None: streams wait for `accept` again.

        Raises:
            UsageError: one of the calls above is under way.
        """
        if callback is not None and self._on_stream is None:
            other = self._takes_streams()
            if other is not None:
                raise UsageError(f"{other} takes this session's streams: on_stream can't too")
        self._on_stream = callback
        if callback is not None:
            self._call_soon(self._deliver)

    def raise_limits(self, max_incoming_streams: int, max_receive_memory: int) -> None:
        """Allow the peer more than `config` did, once it is known who it is.

        Args:
            max_incoming_streams: as in `Config`.
            max_receive_memory: as in `Config`, in bytes.

        Raises:
            ConfigError: a limit can't be.
            UsageError: it is less than so far.
        """
        self._do(self._core.raise_limits, max_incoming_streams, max_receive_memory)

    # The end

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        """Tell the peer to open no more streams; everything else goes on.

        Args:
            code: why, any 32-bit number.
            debug: the same in words; at most 128 bytes of it are sent.

        Raises:
            UsageError: the code is no 32-bit number.
        """
        self._do(self._core.go_away, code, debug)

    def on_draining(self, callback: Callable[[], object]) -> None:
        """Have a function called once, when `draining` begins; soon, if it has begun already.

        A pool of idle connections can close them then, so that they don't hold up `shutdown`.

        Args:
            callback: called without arguments, by the event loop, or in threads by the
                session's own thread. It must not wait; what it raises is logged.
        """
        self._on_draining.append(callback)
        if self.draining:
            self._tell_draining()

    def close(self) -> None:
        """Close the session in order: what was written still goes out, streams read no more.

        It takes `Config.close_timeout` at most; `wait_closed` tells when it is done.
        """
        self._do(self._core.close, self._now())

    def abort(self, code: int = ErrorCode.INTERNAL_ERROR) -> None:
        """End the session at once; what is queued is dropped.

        Args:
            code: what the peer is told, if it can be told at once: any 32-bit number but 0,
                which would make it an orderly end.

        Raises:
            UsageError: the code is none of these.
        """
        self._do(self._core.abort, code, self._now())

    # For the front end

    def _opened(self, stream: CoreStream) -> CoreStream:
        """Pass a stream on that was opened here or accepted; it is logged, if that is asked for."""
        if self._core.tells_at_once:
            self._flush_soon()
        if stream_log.isEnabledFor(logging.DEBUG):
            self._record.stream_opened(stream)
        return stream

    def _tell_draining(self) -> None:
        """Call the callbacks of `on_draining`, each of them once."""
        while True:
            try:  # in threads, another one may take the last of them
                callback = self._on_draining.pop()
            except IndexError:
                return
            self._call_soon(partial(call_logged, callback))

    def _call_soon(self, callback: Callable[[], object]) -> None:
        """Call a function soon in the session's thread or loop, but not inside its own work."""
        raise NotImplementedError

    def _flush_soon(self) -> None:
        """Have what waits sent soon; called in the middle of a step."""
        raise NotImplementedError

    def _takes_streams(self) -> str | None:
        """Return the name of a call that takes the peer's streams now, None if there is none."""
        raise NotImplementedError

    def _next_stream(self) -> StreamT | None:
        """Return the next stream that waits to be accepted, None if none does."""
        raise NotImplementedError

    def _check_taker(self) -> None:
        """Raise `UsageError` if the streams are the callback's of `on_stream`."""
        if self._on_stream is not None:
            raise UsageError("on_stream's callback takes this session's streams")

    def _deliver(self) -> None:
        """Give the streams that wait to the callback of `on_stream`."""
        while (callback := self._on_stream) is not None and self._core.acceptable:
            try:
                stream = self._next_stream()
            except SessionError:
                return  # it has just ended
            if stream is None:
                return
            try:
                callback(stream)
            except BaseException as exc:
                if isinstance(exc, Exception):
                    log_stream_failure(stream, exc)
                give_up(stream, code_of(type(exc)))
                if not isinstance(exc, Exception):
                    raise

    def _do(self, step: Callable[..., object], *args: object) -> None:
        """Call a method of the core, then send and wake as its change of state requires."""
        raise NotImplementedError

    def _now(self) -> float:
        return monotonic()

    def _ended_in_order(self) -> bool:
        """Return whether iteration and `serve` end quietly."""
        return ended_in_order(self._core)

    def _reason(self) -> CloseReason:
        """Return why the session ended, once it has."""
        reason = self._core.reason
        assert reason is not None
        return reason

    def _time_is_up(self, timeout: float) -> None:
        """Abort a session whose `shutdown` has taken too long; a step of the core's."""
        core = self._core
        left = core.live_streams
        text = f"the shutdown's {timeout:g} s were up with {left} stream{'s'[: left != 1]} left"
        core.abort(ErrorCode.INTERNAL_ERROR, self._now(), text)


def ended_in_order(core: CoreSession) -> bool:
    """Return whether a session has ended so that iteration and `serve` end quietly."""
    return core.reason is not None and core.orderly


def as_bytes(data: Any) -> bytes:
    """Return a copy of what is to be written, which the caller may change afterwards.

    Raises:
        TypeError: it is not bytes-like; text is told how to become so.
    """
    if isinstance(data, str):
        raise TypeError("a stream carries bytes, and no str: write text.encode()")
    return bytes(memoryview(data))


def code_of(exc_type: type[BaseException]) -> ErrorCode:
    """Return the code of the RST or GOAWAY for a block or a handler that an exception ended."""
    if issubclass(exc_type, Exception):
        return ErrorCode.INTERNAL_ERROR
    return ErrorCode.STREAM_CANCELLED  # cancelled, or interrupted


def log_stream_failure(stream: BaseStream[Any], exc: BaseException) -> None:
    """Log what a stream's handler raised: a fault of its own, or only how its stream ended."""
    if isinstance(exc, MuxadoError):
        logger.info("stream %d of %r: %s", stream.id, stream.session, exc)
        return
    if isinstance(exc, AttributeError) and getattr(exc, "obj", None) is stream:
        exc.add_note(
            "serve_streams() and session.serve() call their handler with each stream; a handler"
            " of sessions is for serve()"
        )
    logger.error("the handler of stream %d of %r failed", stream.id, stream.session, exc_info=exc)


def log_session_failure(session: BaseSession[Any], exc: BaseException) -> None:
    """Log what a session's handler raised: a fault of its own, or only how its session ended."""
    if isinstance(exc, MuxadoError):
        logger.info("%r: %s", session, exc)
        return
    if isinstance(exc, AttributeError) and getattr(exc, "obj", None) is session:
        exc.add_note(
            "serve() calls its handler with each session; a handler of streams is for"
            " serve_streams(), or for session.serve()"
        )
    logger.error("the handler of %r failed", session, exc_info=exc)


class BaseDriver:
    """What the drivers of all front ends share: what the core reports reaches the right place."""

    __slots__ = ()

    core: CoreSession

    def _report(self) -> None:
        """Wake the calls whose wait is over, and tell the session what has happened to it."""
        core = self.core
        for waiter in core.take_wakes():
            self._wake(waiter)
        events = core.take_events()
        if events:
            self._notify(events)

    def _wake(self, waiter: Any) -> None:
        """Let the call go on that has left this object with the core."""
        raise NotImplementedError

    def _notify(self, events: int) -> None:
        """Tell the session of a set of the core's events, or by 0 that its connection is gone."""
        raise NotImplementedError


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
        core = self._core
        if core.state == CLOSED:
            self._session._call_soon(partial(call_logged, callback))
        else:
            # What waits for the end is told too when the FIN has left, and looks again.
            core.await_end(self._waiter_for(partial(self.on_end, callback)))

    def _waiter_for(self, callback: Callable[[], object]) -> object:
        """Return an object, to leave with the core, that has a function called when woken."""
        raise NotImplementedError


def give_up(stream: BaseStream[Any], code: int = ErrorCode.STREAM_CANCELLED) -> None:
    """End both directions of a stream as abruptly as its wire can.

    Unlike `reset` it raises nothing where that can't tell the code, or can't reset at all.
    """
    stream._do(stream._core.reset, code)


def call_logged(callback: Callable[[], object]) -> None:
    """Call a function of the program's, and log what it raises."""
    try:
        callback()
    except Exception:
        logger.exception("the callback %r failed", callback)
