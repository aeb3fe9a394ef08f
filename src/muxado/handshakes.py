"""Limits the connections of a listener that are in their TLS handshake.

Clients that connect and send nothing must not keep others out. So a new connection is always
taken, and if there are too many, one that has been waiting is closed.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from .log import Throttle

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("muxado")


def hung_up() -> ConnectionResetError:
    """Return the error of a client that hung up before its handshake."""
    return ConnectionResetError(errno.ECONNRESET, "the client hung up before it said anything")


class Handshakes(Generic[T]):
    """The connections in their handshake, by age; the caller closes those that are given up.

    Args:
        most: the largest number of them.
        has_input: tells whether one has sent something that was not noted yet, for a caller that
            takes in many connections before it reads from any. It must not wait.
    """

    def __init__(self, most: int, has_input: Callable[[T], bool] = lambda _: False) -> None:
        self._most = most
        self._has_input = has_input
        self._silent: dict[T, None] = {}  # have sent nothing yet
        self._begun: dict[T, None] = {}
        self._given_up = Throttle()

    def __len__(self) -> int:
        return len(self._silent) + len(self._begun)

    def begin(self, connection: T) -> T | None:
        """Add a connection; return the one to close for it, already removed, or None."""
        crowded = self.oldest() if len(self) >= self._most else None
        self._silent[connection] = None
        return crowded

    def spoke(self, connection: T) -> None:
        """Note that a connection's first bytes have come."""
        if connection in self._silent:
            del self._silent[connection]
            self._begun[connection] = None

    def end(self, connection: T) -> None:
        """Remove a connection whose handshake is over. Harmless if repeated."""
        self._silent.pop(connection, None)
        self._begun.pop(connection, None)

    def oldest(self) -> T | None:
        """Remove and return the connection to close; warn in the log, at most once a minute.

        It is the oldest silent one or the oldest that has sent something, from the larger of the
        two groups. So neither group can crowd out the other, and a client that sends its hello at
        once is safe from any number of silent ones.
        """
        while True:
            crowd = self._silent if len(self._silent) >= len(self._begun) else self._begun
            if not crowd:
                return None
            connection = next(iter(crowd))
            if crowd is self._begun or not self._has_input(connection):
                break
            self.spoke(connection)
        del crowd[connection]
        count = self._given_up.count()
        if count:
            logger.warning(
                "too many connections are in their TLS handshake: closed %d to make room",
                count,
            )
        return connection
