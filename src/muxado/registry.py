"""The sessions that live in this process, so that they can be looked at from anywhere.

How it works. Each front end makes a `SessionRecord` with each session, and tells it when the
session has a connection (`began`) and when that is gone (`ended`). In between the record is listed
in `Sessions`, weakly: a session that a program drops with its event loop, without an end, is
forgotten with it. Looking waits for nothing: a snapshot reads a session's numbers one by one, from
whatever thread, so those of a session that is at work may be a moment apart. What a session has
counted stays, as a sum, when it has ended.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from .core import DRAINING, RUNNING, SESSION_STATES, CoreSession, CoreStream, SessionStats
from .errors import ErrorCode, UsageError
from .log import session_began, session_ended, stream_ended, stream_log, stream_opened
from .proxy_protocol import ProxyHeader
from .snapshots import NOTHING, SessionSnapshot, add_up, only_counters

__all__ = ["SessionRecord", "sessions"]

# Names under which ended sessions are counted. A program may call each session differently; those
# beyond are counted with the sessions that have no name.
MOST_NAMES = 1000
# Ends that are told apart by code and side.
MOST_ENDS = 256

# Where a session is in its life.
NEW, LIVE, OVER = range(3)

Key = tuple[str, str]  # a session's name and role


class SessionRecord:
    """What the process knows of a session besides its core.

    Args:
        core: the session.
        name: what to call it.
        proxy_header: what a proxy said of its connection.
    """

    __slots__ = (
        "__weakref__",
        "_clock_offset",
        "_core_opened_at",
        "_lists",
        "_name",
        "_phase",
        "core",
        "local_address",
        "number",
        "opened_at",
        "proxy_header",
        "remote_address",
    )

    def __init__(
        self, core: CoreSession, name: str = "", proxy_header: ProxyHeader | None = None
    ) -> None:
        self.core: CoreSession = core
        self.number: int = next(_numbers)
        self.opened_at: float = time()
        self.local_address: Any = None
        self.remote_address: Any = None
        self.proxy_header: ProxyHeader | None = proxy_header
        self._name = name
        self._lists = [here]
        self._phase = NEW
        # The core's clock may be another one, which can't be asked from everywhere.
        self._core_opened_at = core.ledger.now
        self._clock_offset = core.ledger.now - monotonic()

    @property
    def name(self) -> str:
        """What the program calls the session, "" if it has no name."""
        return self._name

    def rename(self, name: str) -> None:
        """Give the session another name.

        Raises:
            UsageError: it is no string.
        """
        self._name = check_name(name)

    @property
    def key(self) -> Key:
        """The name and the role."""
        return self._name, "client" if self.core.ledger.client else "server"

    @property
    def state(self) -> str:
        """The session's state, in a word."""
        state = self.core.ledger.state
        return SESSION_STATES[
            DRAINING if state == RUNNING and self.core.closing.draining else state
        ]

    @property
    def last_heard_at(self) -> float:
        """When bytes last came from the peer, in seconds since the epoch."""
        return self.opened_at + (self.core.liveness.received_at - self._core_opened_at)

    def now(self) -> float:
        """Return the time by the core's clock; asked from any thread."""
        return max(self.core.ledger.now, monotonic() + self._clock_offset)

    def snapshot(self) -> SessionSnapshot:
        """Return what the session is like."""
        name, role = self.key
        return SessionSnapshot(
            id=self.number,
            name=name,
            role=role,
            wire=self.core.ledger.rules.name,
            state=self.state,
            local_address=self.local_address,
            remote_address=self.remote_address,
            opened_at=self.opened_at,
            last_heard_at=self.last_heard_at,
            stats=self.core.stats(),
        )

    # For the front end

    def began(self, local: Any, remote: Any) -> None:
        """Note that the session has a connection, between these addresses."""
        header = self.proxy_header
        if header is not None and header.source is not None:
            remote = header.source
        self.local_address = local
        self.remote_address = remote
        self._phase = LIVE
        for each in self._lists:
            each.add(self)
        session_began(self.core, self._name, local, remote)

    def join(self, sessions: Sessions) -> None:
        """Have the session listed among others too, such as those of its server."""
        self._lists.append(sessions)
        if self._phase != NEW:
            sessions.add(self)
        # In threads it may end just now; then one of the two removes it, and only one.
        if self._phase == OVER:
            sessions.remove(self)

    def ended(self) -> None:
        """Note that its connection is gone. Harmless if it had none, or if repeated."""
        if self._phase == LIVE:
            self._phase = OVER
            for each in self._lists:
                each.remove(self)
            self.core.table.watch(None)
            session_ended(self.core, self._name, self.local_address, self.remote_address)

    def stream_opened(self, stream: CoreStream) -> None:
        """Log that a stream was opened here or accepted, and log its end when that comes."""
        stream_opened(stream, self._name, self.remote_address)
        self.core.table.watch(self._stream_ended)

    def _stream_ended(self, stream: CoreStream) -> None:
        if stream_log.isEnabledFor(logging.DEBUG):
            stream_ended(stream, self._name, self.remote_address, self.now())


@dataclass
class Ended:
    """What sessions have left that have ended.

    Attributes:
        stats: the sum of what they have counted.
        ends: how many ended so, by code, by whether it was the peer, and by whether it was clean.
    """

    stats: SessionStats = NOTHING
    ends: dict[tuple[int, bool, bool], int] = field(default_factory=dict)

    def add(self, core: CoreSession) -> None:
        """Add a session that has ended."""
        self.stats = add_up((self.stats, only_counters(core.stats())))
        reason = core.reason
        if reason is not None:
            how = reason.code, reason.by_peer, reason.clean
            if how not in self.ends and len(self.ends) >= MOST_ENDS:
                how = int(ErrorCode.UNKNOWN), reason.by_peer, reason.clean
            self.ends[how] = self.ends.get(how, 0) + 1

    def copy(self) -> Ended:
        """Return one that changes no more."""
        return Ended(self.stats, dict(self.ends))


class Sessions:
    """Sessions that live, and what those have left that have ended.

    Attributes:
        begun: how many have begun, ever.
    """

    def __init__(self) -> None:
        self.begun: int = 0
        self._live: dict[int, weakref.ref[SessionRecord]] = {}
        self._ended: dict[Key, Ended] = {}
        # Held for a moment when a session begins or ends, and for sums; never to look at one.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, record: SessionRecord) -> None:
        """List a session."""
        number = record.number
        live = self._live

        def collected(_: object) -> None:
            live.pop(number, None)

        with self._lock:
            self.begun += 1
            live[number] = weakref.ref(record, collected)

    def remove(self, record: SessionRecord) -> None:
        """List a session no more, and keep what it has counted."""
        key = record.key
        with self._lock:
            if self._live.pop(record.number, None) is None:
                return
            if key not in self._ended and len(self._ended) >= MOST_NAMES:
                key = "", key[1]
            self._ended.setdefault(key, Ended()).add(record.core)

    def records(self) -> list[SessionRecord]:
        """Return the sessions that live, the oldest first."""
        while True:
            try:
                listed = list(self._live.values())
                break
            except RuntimeError:  # another thread has added or removed one meanwhile
                continue
        found = [reference() for reference in listed]
        return [record for record in found if record is not None]

    def ended(self) -> dict[Key, Ended]:
        """Return what the ended sessions have left, by name and role."""
        return self.look()[1]

    def look(self) -> tuple[list[SessionRecord], dict[Key, Ended]]:
        """Return the sessions that live and what the others have left; each is in one of the two.

        What a session has counted can be asked of it when it has ended meanwhile, too.
        """
        with self._lock:
            return self.records(), {key: ended.copy() for key, ended in self._ended.items()}

    def total(self) -> SessionStats:
        """Return the sum over all sessions, ended ones too."""
        records, ended = self.look()
        left = [each.stats for each in ended.values()]
        return add_up((*left, *(record.core.stats() for record in records)))

    def forget(self) -> None:
        """Forget everything: the sessions of a forked child are its parent's."""
        self.__init__()  # type: ignore[misc]


def sessions() -> list[SessionSnapshot]:
    """Return snapshots of the sessions that live in this process, the oldest first.

    It may be called from any thread and from a signal's handler: it waits for nothing, not even
    for a session that another thread is working on. Sessions of all front ends are listed from
    the moment that they have a connection until that is gone.
    """
    return [record.snapshot() for record in here.records()]


def check_name(name: object) -> str:
    """Return a session's name.

    Raises:
        UsageError: it is no string.
    """
    if not isinstance(name, str):
        raise UsageError(f"a session's name must be a string, not {name!r}")
    return name


_numbers = itertools.count(1)

here: Sessions = Sessions()
"""Those of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=here.forget)
