"""The settings of a session."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["Config"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a session. All have defaults that suit most uses.

    The wire negotiates nothing: `initial_window` and `typed` must be the same on both
    ends (docs/protocol.md sections 6 and 10); each side may set the others as it likes.

    Attributes:
        initial_window: bytes that each side may send on a new stream before it is
            granted more. Go calls it ``MaxWindowSize``; both ends must agree.
        max_window: bytes, the most credit that one stream is ever given.
        max_receive_memory: bytes received and not yet read, over the whole session, including
            those that a waiting reader holds. A DATA frame that would exceed it resets its own
            stream (ENHANCE_YOUR_CALM).
        max_incoming_streams: open streams of the peer, and those it has reset that the
            application has not closed yet; one more is refused (STREAM_REFUSED).
            0, for programs that only open streams, refuses every one; if `typed`, Go's
            heartbeats too.
        accept_backlog: streams waiting for `accept()`; one more is refused
            (ACCEPT_QUEUE_FULL) if the application takes none in the meantime.
        write_high_water: bytes; `write()` waits while a stream has this much queued.
        read_limit: bytes; the longest line or record of `readline()`/`readuntil()`.
        ping_interval: seconds without a byte from the peer before a ping is sent. None turns
            dead-peer detection off.
        ping_timeout: seconds that the peer then has to send anything. None turns it off too.
        close_timeout: seconds that `close()` may take before the transport is aborted.
        typed: True if every stream of the session starts with a 4-byte type.
        type_timeout: seconds within which an incoming stream must send its type.
        heartbeat_type: the type of Go's heartbeat streams, which are echoed without the
            application; only used if `typed`.

    Times are int or float, of any size: `math.inf` is a limit that is never reached.

    Raises:
        ConfigError: a value is out of its range, or of the wrong type. It is a `UsageError` and
            a `ValueError`.
    """

    initial_window: int = 256 * KIB
    max_window: int = 16 * MIB
    max_receive_memory: int = 256 * MIB
    max_incoming_streams: int = 10_000
    accept_backlog: int = 1024
    write_high_water: int = 64 * KIB
    read_limit: int = 64 * KIB
    ping_interval: float | None = 15.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 5.0
    typed: bool = False
    type_timeout: float = 10.0
    heartbeat_type: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        for name, least in (
            ("initial_window", 1),
            ("max_window", 1),
            ("max_receive_memory", 1),
            ("max_incoming_streams", 0),
            ("accept_backlog", 1),
            ("write_high_water", 1),
            ("read_limit", 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"Config.{name} must be a whole number of at least {least}, not {value!r}"
                )
        if self.initial_window > 0x7FFFFFFF:
            raise ConfigError("Config.initial_window must be below 2**31")
        if type(self.typed) is not bool:
            raise ConfigError(f"Config.typed must be True or False, not {self.typed!r}")
        if self.typed and (self.initial_window < 4 or self.write_high_water <= 4):
            raise ConfigError(
                "Config.initial_window must hold a stream's 4 type bytes when typed, and"
                " Config.write_high_water must be more than that"
            )
        for name in ("close_timeout", "type_timeout"):
            value = getattr(self, name)
            if not _is_time(value):
                raise ConfigError(
                    f"Config.{name} must be a number of seconds above 0, not {value!r}"
                )
        for name in ("ping_interval", "ping_timeout"):
            value = getattr(self, name)
            if value is not None and not _is_time(value):
                raise ConfigError(
                    f"Config.{name} must be a number of seconds above 0, or None to turn"
                    f" dead-peer detection off, not {value!r}"
                )
        value = self.heartbeat_type
        if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
            raise ConfigError(f"Config.heartbeat_type must be a 32-bit number, not {value!r}")


def _is_time(value: object) -> bool:
    """Return whether a value is a time in seconds above 0; infinity is, NaN isn't."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(value) > 0
    except OverflowError:  # an integer beyond every float, which can't be added to a clock's time
        return False
