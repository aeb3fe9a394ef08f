"""The demo's own arithmetic, and that it notices a wrong byte."""

from __future__ import annotations

import pytest

pytest.importorskip("rich")

from muxado.cli.demo import Tally, repeat


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_wrong_reply_is_counted() -> None:
    tally = Tally("test", seconds=0.05)

    async def lie(question: bytes) -> bytes:
        return bytes(len(question))

    await repeat(tally, 2, lie)
    assert tally.wrong == len(tally.latencies) > 0


def test_percentiles() -> None:
    tally = Tally("test", seconds=1.0)
    assert tally.percentile(50) == 0
    tally.latencies = [number / 1000 for number in range(1, 101)]
    assert tally.percentile(0) == 1
    assert tally.percentile(50) == pytest.approx(51)
    assert tally.percentile(99) == pytest.approx(100)
