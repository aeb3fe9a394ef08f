"""Turns muxado's errors into trio's, which carry them as their cause."""

from __future__ import annotations

from types import TracebackType

import trio

from ..errors import MuxadoError


class _TrioErrors:
    """Raises trio's error in the place of muxado's, at the end of a block."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, MuxadoError):
            raise as_trio_error(exc) from exc


# Faster than a generator, and every call on a stream enters it.
trio_errors: _TrioErrors = _TrioErrors()


def as_trio_error(exc: MuxadoError) -> trio.ClosedResourceError | trio.BrokenResourceError:
    """Return trio's error for one of muxado's."""
    kind = trio.ClosedResourceError if exc.closed_here else trio.BrokenResourceError
    return kind(str(exc))


def original(exc: BaseException) -> BaseException:
    """Return the muxado error that an exception carries, or else the exception itself."""
    return exc.__cause__ if isinstance(exc.__cause__, MuxadoError) else exc
