"""The settings of a session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from .errors import ConfigError
from .wire import FORMATS, NO_WINDOW, TYPES_FIRST, Rules

__all__ = ["Config"]

AUTO = "auto"

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a session. All have defaults that suit most uses.

    The wire negotiates nothing: `wire`, `initial_window` and `typed` must be the same on both
    ends (docs/protocol.md sections 6 and 10); each side may set the others as it likes.

    Attributes:
        wire: the format of what travels: "muxado-v2", "muxado-v1", "yamux", "smux-v2" or
            "smux-v1"; for servers "auto" too, which takes the format of each client's first bytes.
        initial_window: bytes that each side may send on a new stream before it is
            granted more. Go calls it ``MaxWindowSize``; both ends must agree. None stands for
            what the wire has by default, 256 KiB on muxado v2; the other wires have one that
            can't be chosen. A session's own `config` has the number, None where streams have no
            window (smux v1).
        max_window: bytes, the most credit that one stream is ever given.
        max_receive_memory: bytes received and not yet read, over the whole session, including
            those that a waiting reader holds. A DATA frame that would exceed it resets its own
            stream (ENHANCE_YOUR_CALM). On smux, which has no resets, it waits in the transport,
            as what exceeds the next two does.
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
        stall_timeout: seconds that a stream may have data to send and no credit, on wires whose
            peers say nothing of a stream that they have forgotten (yamux, smux). Then it is reset
            (WRITE_TIMEOUT). None: for ever.
        hold_timeout: seconds that the application may accept and read nothing while the peer is
            held back for it, on wires that can't refuse a stream (smux). Then the session ends
            (INTERNAL_ERROR). None, the default: for ever, as in Go.
        typed: True if every stream of the session starts with a 4-byte type; on muxado v2 only.
        type_timeout: seconds within which an incoming stream must send its type.
        heartbeat_type: the type of Go's heartbeat streams, which are echoed without the
            application; only used if `typed`.

    Times are int or float, of any size: `math.inf` is a limit that is never reached.

    Raises:
        ConfigError: a value is out of its range, or of the wrong type. It is a `UsageError` and
            a `ValueError`.
    """

    wire: str = "muxado-v2"
    initial_window: int | None = None
    max_window: int = 16 * MIB
    max_receive_memory: int = 256 * MIB
    max_incoming_streams: int = 10_000
    accept_backlog: int = 1024
    write_high_water: int = 64 * KIB
    read_limit: int = 64 * KIB
    ping_interval: float | None = 15.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 5.0
    stall_timeout: float | None = 60.0
    hold_timeout: float | None = None
    typed: bool = False
    type_timeout: float = 10.0
    heartbeat_type: int = 0xFFFFFFFF

    def __post_init__(self) -> None:
        if self.wire != AUTO and self.wire not in FORMATS:
            known = ", ".join(map(repr, FORMATS))
            raise ConfigError(
                f"Config.wire must be one of {known}, or {AUTO!r} for a server, not {self.wire!r}"
            )
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
            if value is None and name == "initial_window":
                continue
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"Config.{name} must be a whole number of at least {least}, not {value!r}"
                )
        window = 256 * KIB if self.initial_window is None else self.initial_window
        if window > 0x7FFFFFFF:
            raise ConfigError("Config.initial_window must be below 2**31")
        if type(self.typed) is not bool:
            raise ConfigError(f"Config.typed must be True or False, not {self.typed!r}")
        if self.wire != AUTO:
            self._check_wire(FORMATS[self.wire].rules)
        if self.typed and (window < 4 or self.write_high_water <= 4):
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
        for name, what in (
            ("ping_interval", "to turn dead-peer detection off"),
            ("ping_timeout", "to turn dead-peer detection off"),
            ("stall_timeout", "for no limit"),
            ("hold_timeout", "for no limit"),
        ):
            value = getattr(self, name)
            if value is not None and not _is_time(value):
                raise ConfigError(
                    f"Config.{name} must be a number of seconds above 0, or None {what},"
                    f" not {value!r}"
                )
        value = self.heartbeat_type
        if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
            raise ConfigError(f"Config.heartbeat_type must be a 32-bit number, not {value!r}")

    def _check_wire(self, rules: Rules) -> None:
        """Raise `ConfigError` if the wire can't have what is asked for."""
        window = self.initial_window
        if not rules.agreed_window and window not in (None, rules.first_window):
            fixed = "absent" if rules.first_window == NO_WINDOW else f"always {rules.first_window}"
            raise ConfigError(
                f"Config.initial_window is {fixed} on the wire of {rules.name}: leave it out"
            )
        if self.typed and rules.types != TYPES_FIRST:
            raise ConfigError(
                "Config.typed is for muxado v2"
                + (
                    f": on the wire of {rules.name} every stream has a type, by open(type=)"
                    if rules.types
                    else f": on the wire of {rules.name} streams have no types"
                )
            )


@lru_cache(256)
def in_force(config: Config, wire: str) -> Config:
    """Return the settings of a session that speaks a wire, with nothing left open."""
    rules = FORMATS[wire].rules
    window = config.initial_window
    if window is None or not rules.agreed_window:
        window = rules.first_window if rules.first_window != NO_WINDOW else None
    typed = config.typed and rules.types == TYPES_FIRST
    return replace(config, wire=wire, initial_window=window, typed=typed)


def _is_time(value: object) -> bool:
    """Return whether a value is a time in seconds above 0; infinity is, NaN isn't."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(value) > 0
    except OverflowError:  # an integer beyond every float, which can't be added to a clock's time
        return False
