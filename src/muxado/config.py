"""Every knob of a session, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UsageError

__all__ = ["Config"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a session. All have defaults that suit most uses.

    The wire negotiates nothing: `initial_window` and `typed` must be the same on both
    ends (docs/protocol.md sections 6 and 10), the rest is each side's own affair.

    Attributes:
        initial_window: bytes that each side may send on a new stream before it is
            granted more. Go calls it ``MaxWindowSize``; both ends must agree.
        max_window: bytes, the most credit that one stream is ever given.
        max_receive_memory: bytes received and not yet read, over the whole session. A
            DATA frame that would pass it resets its own stream (ENHANCE_YOUR_CALM).
        max_incoming_streams: streams opened by the peer and alive at once; one more is
            refused (STREAM_REFUSED).
        accept_backlog: streams waiting for `accept()`; one more is refused
            (ACCEPT_QUEUE_FULL) if the application takes none in the meantime.
        write_high_water: bytes; `write()` waits while a stream has this much queued.
        read_limit: bytes; the longest line or record of `readline()`/`readuntil()`.
        ping_interval: seconds without a byte from the peer before it is asked whether
            it still lives. None turns dead-peer detection off.
        ping_timeout: seconds it then has to send anything at all. None turns it off too.
        close_timeout: seconds that `close()` may take before the transport is aborted.
        typed: True if every stream of the session starts with a 4-byte type.
        type_timeout: seconds within which an incoming stream must send its type.
        heartbeat_type: the type of Go's heartbeat streams, echoed without the
            application; only looked at when `typed`.

    Raises:
        UsageError: a value is out of its range.
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
        for name in (
            "initial_window",
            "max_window",
            "max_receive_memory",
            "max_incoming_streams",
            "accept_backlog",
            "write_high_water",
            "read_limit",
        ):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(
                    f"Config.{name} must be a whole number of at least 1, not {value!r}"
                )
        if self.initial_window > 0x7FFFFFFF:
            raise UsageError("Config.initial_window must be below 2**31")
        if self.typed and (self.initial_window < 4 or self.write_high_water <= 4):
            raise UsageError(
                "Config.initial_window must hold a stream's 4 type bytes when typed, and"
                " Config.write_high_water must be more than that"
            )
        for name in ("close_timeout", "type_timeout"):
            value = getattr(self, name)
            if not value > 0:
                raise UsageError(
                    f"Config.{name} must be a number of seconds above 0, not {value!r}"
                )
        for name in ("ping_interval", "ping_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(
                    f"Config.{name} must be a number of seconds above 0, or None to turn"
                    f" dead-peer detection off, not {value!r}"
                )
        if not 0 <= self.heartbeat_type <= 0xFFFFFFFF:
            raise UsageError("Config.heartbeat_type must be a 32-bit number")
