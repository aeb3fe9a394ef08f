"""A short run of the soak; `make soak` is the long one."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec

import pytest

import muxado
from muxado import Session
from tests.patience import patience

from ..helpers import echo, exchange

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
    ran = subprocess.run(command, capture_output=True, text=True, timeout=patience(50), check=False)
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


@pytest.mark.anyio
async def test_short_streams_over_sockets_leave_nothing_behind(no_complaints: None) -> None:
    """To the byte, which the memory of a process is too coarse for."""

    async def handle(session: Session) -> None:
        await session.serve(echo)

    async def ask(session: Session, count: int) -> None:
        for _ in range(count):
            async with session.open() as stream:
                assert await exchange(stream, b"x" * 64) == b"x" * 64

    async def held_after(session: Session, count: int) -> int:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(ask(session, count // 20))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async with (
        muxado.serve(handle, "127.0.0.1", 0) as server,
        muxado.connect(*server.addresses[0]) as session,
    ):
        tracemalloc.start()
        try:
            before = await held_after(session, 1000)
            grown = await held_after(session, 1000) - before
        finally:
            tracemalloc.stop()
    assert grown < 16 * 1024
