"""Puts a socket in the place of this process's standard input and output."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def standing_in() -> Iterator[socket.socket]:
    """Let a socket stand in for descriptors 0 and 1; give its other end, which stays open."""
    near, far = socket.socketpair()
    kept = os.dup(0), os.dup(1)
    try:
        with far:
            for number in (0, 1):
                os.dup2(far.fileno(), number)
        yield near
    finally:
        for number, old in enumerate(kept):
            os.dup2(old, number)
            os.close(old)
