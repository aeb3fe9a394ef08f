"""A short run of the soak; `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


def soak(*arguments: str) -> str:
    """Run the script; return what it says, without a single complaint."""
    command = [sys.executable, "-m", "tests.reliability.soak", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("loop", LOOPS)
def test_every_byte_is_accounted_for_after_mixed_traffic_over_a_bad_line(loop: str) -> None:
    said = soak("--seconds", "2", "--seed", "5", "--loop", loop)
    assert "every byte is accounted for" in said
    assert "0 sessions" not in said.splitlines()[-3]


@pytest.mark.parametrize("loop", LOOPS)
def test_many_short_streams_on_one_session_keep_memory_flat(loop: str) -> None:
    assert "grown by" in soak("--streams", "20000", "--loop", loop)
