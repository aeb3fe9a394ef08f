"""One factor for every time limit of the tests, so that a slow or busy machine needs no other.

MUXADO_TEST_PATIENCE=5 makes each of them five times as long: what counts as hanging, how long
something may take, and pytest-timeout's own limit. Times that a test is about, such as an interval
of pings or a timeout that has to run out, stay as they are.
"""

from __future__ import annotations

import os

import pytest

FACTOR = float(os.environ.get("MUXADO_TEST_PATIENCE", "1"))


def patience(seconds: float) -> float:
    """Return how many seconds to allow for what takes less than so many on an idle machine."""
    return seconds * FACTOR


def scale_timeout(config: pytest.Config) -> None:
    """Apply the factor to the limit of pytest-timeout, unless the command line gives one."""
    limit = config.getini("timeout")
    if limit and config.getoption("timeout", None) is None:
        config.option.timeout = patience(float(limit))
