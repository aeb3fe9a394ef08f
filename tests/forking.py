"""A forked child that lives on, as those of multiprocessing do."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@contextmanager
def living_child(work: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Have a child that does some work, which must not fail, and then lives as long as the block.

    The block begins when the work is done.
    """
    ended, rope = os.pipe()
    done, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(rope)
            work()
            os.close(tell)
            os.read(ended, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    os.close(ended)
    try:
        os.read(done, 1)
        yield
    finally:
        os.close(done)
        os.close(rope)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0
