"""What is told of sessions and servers that are looked at, and how figures of many are added up.

In each class a *counter* only grows, and a *gauge* says what is now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from .core import SessionStats
from .errors import ErrorCode

__all__ = ["ServerStats", "SessionSnapshot", "add_up", "only_counters"]

# Codes that are told apart in a sum, however many the sessions' peers choose.
MOST_CODES = 64

LONGEST = ("rtt", "min_rtt")


@dataclass(frozen=True, kw_only=True)
class SessionSnapshot:
    """What a session was like at a moment.

    Attributes:
        id: a number that no other session of this process has, or had.
        name: what the program calls it, "" if it has no name.
        role: "client" or "server".
        wire: the wire format's name.
        state: "open", "draining", "closing" or "closed".
        local_address: this end's address, as `getsockname()` gives it; None if there is none.
        remote_address: the peer's, as `getpeername()` gives it; None if there is none.
        opened_at: when the session was made, in seconds since the epoch.
        last_heard_at: gauge: when bytes last came from the peer; `opened_at` before the first.
        stats: its figures, each of which says whether it is a counter or a gauge.
    """

    id: int
    name: str
    role: str
    wire: str
    state: str
    local_address: Any
    remote_address: Any
    opened_at: float
    last_heard_at: float
    stats: SessionStats


@dataclass(frozen=True, kw_only=True)
class ServerStats:
    """What a server has done so far, and what it holds.

    Attributes:
        sessions: gauge: sessions that live.
        sessions_accepted: counter: sessions that were begun.
        sessions_refused: counter: connections that were turned away for `max_sessions`.
        handshakes: gauge: connections in their TLS handshake.
        handshakes_failed: counter: connections that became no session.
        total: the sum over its sessions. Counters have what ended sessions did too; gauges are of
            those that live, and `rtt` and `min_rtt` the longest of these.
    """

    sessions: int
    sessions_accepted: int
    sessions_refused: int
    handshakes: int
    handshakes_failed: int
    total: SessionStats


def add_up(stats: Iterable[SessionStats]) -> SessionStats:
    """Return the sum of sessions' figures; of round trips, the longest one."""
    total: dict[str, Any] = {}
    for each in stats:
        for name, value in vars(each).items():
            if isinstance(value, Mapping):
                _add_codes(total.setdefault(name, {}), value)
            elif name in LONGEST:
                total[name] = max(total.get(name, 0.0), value)
            else:
                total[name] = total.get(name, 0) + value
    if not total:
        return NOTHING
    return SessionStats(**total)


def only_counters(stats: SessionStats) -> SessionStats:
    """Return figures without their gauges: what a session leaves that has ended."""
    return replace(stats, streams=0, rtt=0.0, min_rtt=0.0, memory_held=0, bytes_queued=0)


def _add_codes(total: dict[int, int], counts: Mapping[int, int]) -> None:
    for code, count in counts.items():
        if code not in total and len(total) >= MOST_CODES:
            code = int(ErrorCode.UNKNOWN)
        total[code] = total.get(code, 0) + count


def _nothing() -> SessionStats:
    values: dict[str, Any] = {
        field.name: {} if field.name.endswith("_by_code") else 0 for field in fields(SessionStats)
    }
    return SessionStats(**values)


NOTHING: SessionStats = _nothing()
