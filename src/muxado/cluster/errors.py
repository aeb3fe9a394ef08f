"""The errors of a cluster.

::

    ClusterError(MuxadoError)
    ├─ DirectoryAway(ConnectionError)   the directory's engine can't be asked now
    ├─ NameTaken(PermissionError)       another identity holds the name
    ├─ Superseded                       a newer session of the same identity holds the name
    ├─ NameUnknown(LookupError)         no session has that name, or that service
    ├─ NameAway(ConnectionError)        its session was there a moment ago; safe to retry
    ├─ Denied(PermissionError)          the server does not take this session
    ├─ Refused(PermissionError)         the server that holds the session does not allow it
    └─ HeaderError(ValueError)          a header, or a hello, that can't be
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ErrorCode, MuxadoError

if TYPE_CHECKING:
    from .directory import Route

__all__ = [
    "ClusterError",
    "Denied",
    "DirectoryAway",
    "HeaderError",
    "NameAway",
    "NameTaken",
    "NameUnknown",
    "Refused",
    "Superseded",
]


class ClusterError(MuxadoError):
    """The base class of the errors of a cluster."""


class DirectoryAway(ClusterError, ConnectionError):
    """The directory's engine can't be asked, or does not take what it is told, for now.

    `str()` says why. `errno` is ``EAGAIN``.
    """

    errno: int | None = errno.EAGAIN


class NameTaken(ClusterError, PermissionError):
    """The name is held by the session of another identity. `errno` is ``EACCES``."""

    code: int = 403
    errno: int | None = errno.EACCES


class Superseded(ClusterError):
    """A newer session of the same identity has claimed the name.

    Attributes:
        route: who holds it now.
    """

    code: int = ErrorCode.STREAM_CANCELLED

    def __init__(self, name: str, route: Route) -> None:
        super().__init__(f"{name} was claimed anew at {route.place.address}")
        self.name: str = name
        self.route: Route = route

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew."""
        return partial(type(self), self.name, self.route), ()


class NameUnknown(ClusterError, LookupError):
    """The name is not claimed, or its session does not have that service."""

    code: int = 404


class NameAway(ClusterError, ConnectionError):
    """The name's session has gone, and no other one has come within the grace period.

    Nothing was sent to it: it is safe to try again. `errno` is ``EHOSTDOWN``.
    """

    code: int = ErrorCode.REMOTE_GONE_AWAY
    errno: int | None = errno.EHOSTDOWN


class Denied(ClusterError, PermissionError):
    """The server does not take this session: `str()` says why, `code` in which way.

    The codes are 401 for who is unknown, 403 for what is not allowed, 409 for a name that somebody
    else has, 503 for a server that is about to end. `errno` is ``EACCES``.
    """

    errno: int | None = errno.EACCES

    def __init__(self, message: str, code: int = 403) -> None:
        super().__init__(message)
        self.code: int = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell `pickle` how to make the error anew."""
        return partial(type(self), str(self), self.code), ()


class Refused(ClusterError, PermissionError):
    """The server that holds the session does not allow this stream. `errno` is ``EACCES``."""

    code: int = 403
    errno: int | None = errno.EACCES


class HeaderError(ClusterError, ValueError):
    """What should be a header or a hello is none, or is longer than it may be."""

    code: int = ErrorCode.PROTOCOL_ERROR
