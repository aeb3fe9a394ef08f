"""What the sessions of all front ends share: looking, and the calls that never wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from .base_stream import BaseStream, give_up
from .config import Config
from .core import CLOSING, CoreSession, CoreStream, SessionStats, StreamSnapshot
from .errors import CloseReason, ErrorCode, GoAway, SessionError, UsageError
from .front_end import call_logged, code_of, ended_in_order, log_stream_failure
from .log import stream_log
from .registry import SessionRecord

StreamT = TypeVar("StreamT", bound="BaseStream[Any]")


class BaseSession(Generic[StreamT]):
    """What the sessions of all front ends share."""

    _core: CoreSession
    _record: SessionRecord
    _on_draining: list[Callable[[], object]]  # what to call when it begins
    _on_stream: Callable[[StreamT], object] | None  # what takes the streams that the peer opens

    def __repr__(self) -> str:
        core = self._core
        role = "client" if core.ledger.client else "server"
        name = f" {self.name!r}" if self.name else ""
        peer = self.remote_address
        return (
            f"<Session{name} {role} {self._record.state} peer={peer!r} streams={core.table.live}>"
        )

    # Looking

    @property
    def config(self) -> Config:
        """The session's settings."""
        return self._core.ledger.config

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
        return self._core.ledger.state >= CLOSING

    @property
    def draining(self) -> bool:
        """Whether either side has told the other to open no more streams."""
        return self._core.closing.draining

    @property
    def peer_goaway(self) -> GoAway | None:
        """What the peer's GOAWAY said, as ``(code, debug)``; None while none has come.

        The session may go on after it: only `open` fails then, with `PeerGone`.
        """
        return self._core.closing.peer_goaway

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
                what the proxy said: its `source` and `destination`. Over a WebSocket there are
                `headers` and `subprotocol`, and at the server `path`.
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
        return [stream.snapshot(now) for stream in self._core.table.list_streams()]

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
        if self._core.ledger.rules.opens_apart:
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
        while (callback := self._on_stream) is not None and self._core.table.acceptable:
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
        left = core.table.live
        text = f"the shutdown's {timeout:g} s were up with {left} stream{'s'[: left != 1]} left"
        core.abort(ErrorCode.INTERNAL_ERROR, self._now(), text)
