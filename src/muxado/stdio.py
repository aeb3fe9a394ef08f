"""A process's own standard input and output as a connection, for `serve_stdio`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from .errors import UsageError

__all__ = ["one_socket", "take_stdio"]


def take_stdio() -> tuple[int, int]:
    """Take the standard input and output from the rest of the process, for good.

    From then on descriptor 0 gives nothing, and what is written to descriptor 1, by `print` or a
    child, goes to standard error.

    Returns:
        descriptors of their own for what was the input and the output.

    Raises:
        UsageError: they are no pipes or sockets, as after they were taken.
    """
    for number, what in ((0, "input"), (1, "output")):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            mode = 0
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise UsageError(
                f"the standard {what} is no pipe and no socket: a program that serves on them is"
                " to be started by connect(command=[...]), and can serve once"
            )
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    found = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(null, 1)
    os.close(null)
    return found


def one_socket(source: int, sink: int) -> bool:
    """Return whether two descriptors are those of one socket."""
    found = os.fstat(source)
    return stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, os.fstat(sink))
