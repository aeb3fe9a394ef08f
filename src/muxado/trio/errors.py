"""Turns muxado's errors into trio's, which carry them as their cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..errors import MuxadoError


@contextmanager
def trio_errors() -> Iterator[None]:
    """Raise trio's error in the place of muxado's."""
    try:
        yield
    except MuxadoError as exc:
        error = trio.ClosedResourceError if exc.closed_here else trio.BrokenResourceError
        raise error(str(exc)) from exc


def original(exc: BaseException) -> BaseException:
    """Return the muxado error that an exception carries, or else the exception itself."""
    return exc.__cause__ if isinstance(exc.__cause__, MuxadoError) else exc
