"""What an idle session keeps, in each front end, over TLS too, and after bulk too."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.patience import patience


class Limit(NamedTuple):
    """KiB of both ends of a session, at most: the floors, or what was reached and a tenth more."""

    front_end: str
    scheme: str
    idle: float
    after_bulk: float


# The floors are 2 x 30 KiB, over TLS 2 x 64, and 60 and 90 for the server of threads; stacks don't
# count here.
LIMITS = [
    Limit("asyncio", "plain", 38, 44),
    Limit("asyncio", "tls", 82, 180),  # the floor is missed after bulk
    Limit("sync", "plain", 58, 68),
    Limit("sync", "tls", 108, 118),
    Limit("trio", "plain", 82, 86),  # the floor is missed
    Limit("trio", "tls", 130, 230),  # the floor is missed after bulk
]


def measure(limit: Limit) -> list[float]:
    arguments = [limit.front_end, limit.scheme, str(limit.idle), str(limit.after_bulk)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.idle_memory", *arguments],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=patience(150),
    )
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(
    not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")),
    reason="only glibc tells what it has given out",
)
def test_what_idle_sessions_keep() -> None:
    with ThreadPoolExecutor(3) as pool:  # most of the time each waits for its pings
        kept = dict(zip(LIMITS, pool.map(measure, LIMITS), strict=True))
    over = {
        limit: figures
        for limit, figures in kept.items()
        if figures[0] > limit.idle or figures[1] > limit.after_bulk
    }
    assert not over, kept
