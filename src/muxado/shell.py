"""What the sessions and streams of all three shells have in common: the calls that never wait."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any, Generic, TypeVar

from .config import Config
from .core import CoreSession, CoreStream, SessionStats
from .core.states import CLOSED, CLOSING, SESSION_STATES, STREAM_STATES
from .errors import CloseReason, ErrorCode

SessionT = TypeVar("SessionT", bound="BaseSession[Any]")
StreamT = TypeVar("StreamT", bound="BaseStream[Any]")


class BaseSession(Generic[StreamT]):
    """A session, as far as it is the same in every shell."""

    __slots__ = ()

    _core: CoreSession

    def __repr__(self) -> str:
        core = self._core
        role = "client" if core.client else "server"
        return (
            f"<Session {role} {SESSION_STATES[core.state]} peer={self.remote_address!r}"
            f" streams={len(core.streams) - core.heartbeats}>"
        )

    # Looking

    @property
    def config(self) -> Config:
        """The session's settings."""
        return self._core.config

    @property
    def closed(self) -> bool:
        """Whether the session can't be used any more, because it is closing or has ended."""
        return self._core.state >= CLOSING

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
        """Return what the connection says of itself.

        Args:
            name: one of the names of asyncio's `BaseTransport.get_extra_info`: `peername`,
                `sockname`, `socket`; with TLS `ssl_object`, `sslcontext`, `peercert`, `cipher`,
                `compression`. Look at the socket and the TLS object; reading, writing or
                closing there breaks the session.
            default: what is returned for another name, or if the connection doesn't have it.
        """
        raise NotImplementedError

    def stats(self) -> SessionStats:
        """Return a snapshot of the session's counters."""
        return self._core.stats()

    # Opening

    def open(self, *, type: int | None = None, priority: int = 0, eager: bool = False) -> StreamT:
        """Open a stream, without waiting for the peer.

        The peer hears of it with the first write, the first read, or the end of the output.

        Args:
            type: the stream's 32-bit type, 0 if none is given; only with `Config.typed`.
            priority: how urgent what we send is, from -8 to 7; higher goes first.
            eager: let the peer know of the stream at once.

        Raises:
            UsageError: the type or the priority can't be.
            SessionClosed: the session is closing, or has ended (or another `SessionError`).
            PeerGone: the peer takes no new streams: dial a new session.
            StreamsExhausted: every stream id has been used: dial a new session.
        """
        raise NotImplementedError

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

    def close(self) -> None:
        """Close the session in order: what was written still goes out, streams read no more.

        It takes `Config.close_timeout` at most; `wait_closed` tells when it is done.
        """
        self._do(self._core.close, self._now())

    def abort(self, code: int = 0) -> None:
        """End the session at once; what is queued is dropped.

        Args:
            code: what the peer is told, if it can be told at once.

        Raises:
            UsageError: the code is no 32-bit number.
        """
        self._do(self._core.abort, code, self._now())

    # For the shell

    def _do(self, step: Callable[..., object], *args: object) -> None:
        """Take a step of the core's, and do what it calls for."""
        raise NotImplementedError

    def _now(self) -> float:
        return monotonic()

    def _ended_cleanly(self) -> bool:
        reason = self._core.reason
        return reason is not None and reason.clean


class BaseStream(Generic[SessionT]):
    """A stream, as far as it is the same in every shell."""

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
        """The stream's 32-bit type in a session with `Config.typed`, else None."""
        return self._core.type

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
        """Return whether a read would return at once, be it with bytes, the end, or an error.

        A connection that waits for nothing, as an idle one in a client's pool, is not readable
        for as long as it can be used.
        """
        return self._core.readable()

    def is_closing(self) -> bool:
        """Return whether this side writes no more: after a half-close, a close or a reset."""
        core = self._core
        return core.fin_asked or core.closed_here or core.state == CLOSED

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
            UsageError: the code is no 32-bit number.
        """
        self._do(self._core.reset, code)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        """Take a step of the core's, and do what it calls for."""
        raise NotImplementedError


class ConnectionInfo:
    """What a connection says of itself, for `get_extra_info`; kept when it is gone.

    Args:
        sock: its socket, None if it has none.
        secured: what speaks TLS over it, if anything: an `ssl.SSLSocket`, or the like of it.
        lock: to be held while that is asked.
    """

    def __init__(
        self, sock: Any, secured: Any = None, lock: AbstractContextManager[Any] | None = None
    ) -> None:
        self._known: dict[str, Any] = {}
        self._secured = secured
        self._lock = lock or nullcontext()
        if sock is not None:
            self._known["socket"] = sock
            for name, ask in (("peername", sock.getpeername), ("sockname", sock.getsockname)):
                try:
                    self._known[name] = ask()
                except OSError:
                    self._known[name] = None
        if secured is not None:
            self._known |= {"ssl_object": secured, "sslcontext": secured.context}
            self._ask()

    def get(self, name: str, default: Any) -> Any:
        """Return one piece of it."""
        if name not in self._known and self._secured is not None:
            with self._lock:
                self._ask()
        return self._known.get(name, default)

    def _ask(self) -> None:
        secured = self._secured
        try:
            self._known |= {
                "peercert": secured.getpeercert(),
                "cipher": secured.cipher(),
                "compression": secured.compression(),
            }
        except Exception:
            return  # the handshake isn't done yet, or the connection is over
