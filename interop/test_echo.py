"""Bytes there and back, of every size, from either side."""

from __future__ import annotations

import pytest

from .helpers import MIB, WINDOW, data_of, echo, exchange, running
from .meeting import ALL_WAYS, USUAL_WAYS, Meeting, Way

pytestmark = pytest.mark.anyio

SIZES = [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, MIB]


@pytest.mark.parametrize("way", ALL_WAYS, ids=str)
async def test_either_side_opens_whichever_dials(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    await exchange(session, b"from us")
    async with running(session.serve(echo)):
        reply = await go.call("check", n=1000)
    assert reply["sent_sha256"] == reply["received_sha256"]


@pytest.mark.parametrize("size", SIZES)
async def test_go_echoes(meeting: Meeting, way: Way, size: int) -> None:
    session, go = await meeting.meet(way)
    await exchange(session, data_of(size))
    assert session.stats().streams == 0
    stats = await go.call("stats")
    assert (stats["read"], stats["written"], stats["failed"]) == (size, size, 0)


@pytest.mark.parametrize("size", SIZES)
async def test_we_echo(meeting: Meeting, way: Way, size: int) -> None:
    session, go = await meeting.meet(way)
    async with running(session.serve(echo)):
        for chunk in (-1, 0):  # one Write call, and many of random sizes
            reply = await go.call("check", n=size, chunk=chunk)
            assert reply["sent"] == reply["received"] == size
            assert reply["sent_sha256"] == reply["received_sha256"]


@pytest.mark.big
@pytest.mark.parametrize("way", USUAL_WAYS, ids=str)
async def test_64_mib_there_and_back(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    await exchange(session, data_of(64 * MIB))
    async with running(session.serve(echo)):
        reply = await go.call("check", n=64 * MIB, chunk=MIB)
    assert reply["received"] == 64 * MIB
    assert reply["sent_sha256"] == reply["received_sha256"]
