"""Half-closes, resets and types."""

from __future__ import annotations

import pytest

from muxado import Config, ErrorCode, StreamReset, UsageError

from .gopeer import GoError
from .helpers import WINDOW, data_of, exchange, running, sha256
from .meeting import Meeting, Way

pytestmark = pytest.mark.anyio

TYPED = Config(typed=True)


# Half-close


async def test_we_half_close_and_go_answers(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "hash")
    data = data_of(300_000)
    async with session.open() as stream:
        await stream.write(data)
        stream.write_eof()
        assert (await stream.read()).hex() == sha256(data)
        assert stream.at_eof()


async def test_go_half_closes_and_we_answer(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    opened = await go.call("open")
    written = await go.call("write", handle=opened["handle"], n=100_000)
    await go.call("close-write", handle=opened["handle"])
    async with await session.accept() as stream:
        assert stream.id == opened["stream"]
        assert sha256(await stream.read()) == written["sha256"]
        answer = data_of(WINDOW)
        async with running(stream.write(answer)):
            reply = await go.call("read", handle=opened["handle"], n=WINDOW)
            assert (reply["eof"], reply["sha256"]) == (False, sha256(answer))
        stream.write_eof()
        reply = await go.call("read", handle=opened["handle"])
        assert (reply["n"], reply["eof"]) == (0, True)
        assert await stream.wait_reset() is None  # both halves have ended in order


async def test_go_half_closes_a_stream_of_ours(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    async with session.open(eager=True) as stream:
        handle = (await go.event("held"))["handle"]
        await go.call("write", handle=handle, data="0102")
        await go.call("close-write", handle=handle)
        assert await stream.read() == b"\x01\x02"
        await stream.write(b"after Go's FIN")
        assert (await go.call("read", handle=handle, n=14))["n"] == 14
        stream.write_eof()
        assert (await go.call("read", handle=handle))["eof"]
        with pytest.raises(GoError):
            await go.call("write", handle=handle, data="03")


# Reset


@pytest.mark.parametrize("code", [0, 2, 6, 255, 0xFFFFFFFF])
async def test_our_reset_reaches_go_with_its_code(meeting: Meeting, way: Way, code: int) -> None:
    session, go = await meeting.meet(way, "hold")
    for opened_by_go in (False, True):
        if opened_by_go:
            handle = (await go.call("open"))["handle"]
            await go.call("write", handle=handle, n=1)
            stream = await session.accept()
        else:
            stream = session.open(eager=True)
            handle = (await go.event("held"))["handle"]
        reading = go.call("read", handle=handle)
        await stream.write(b"before")
        await session.ping()  # it would be dropped if it were still queued
        stream.reset(code)
        with pytest.raises(GoError) as caught:
            await reading
        assert caught.value.code == code
        assert caught.value.reply["n"] == len(b"before")
        with pytest.raises(GoError) as caught:
            await go.call("write", handle=handle, n=1)
        assert caught.value.code == code
        with pytest.raises(StreamReset) as ours:
            await stream.write(b"x")
        assert (ours.value.code, ours.value.by_peer) == (code, False)
    assert (await go.call("stats"))["table"] == 0


async def test_gos_reset_reaches_us_with_its_code(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    for opened_by_go in (False, True):
        if opened_by_go:
            handle = (await go.call("open"))["handle"]
            await go.call("write", handle=handle, n=1)
            stream = await session.accept()
            assert len(await stream.read(1)) == 1
        else:
            stream = session.open(eager=True)
            handle = (await go.event("held"))["handle"]
        await go.call("close", handle=handle)
        assert await stream.read() == b""  # Go's Close is a FIN
        await stream.write(b"no stream there")  # and a RST to the first that comes then
        assert await stream.wait_reset() == ErrorCode.STREAM_CLOSED
        with pytest.raises(StreamReset) as caught:
            await stream.write(b"x")
        assert (caught.value.code, caught.value.by_peer) == (
            ErrorCode.STREAM_CLOSED,
            True,
        )
        assert await stream.read() == b""  # the clean end had come first
    await session.ping()


async def test_a_reset_hurts_no_other_stream(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "echo")
    for number in range(20):
        stream = session.open()
        await stream.write(b"x" * 1000)
        await session.ping()
        stream.reset(number)
        await exchange(session, data_of(10_000, number))
    assert (await go.call("stats"))["accepted"] == 40
    assert session.stats().streams == 0


# Types


async def test_go_sees_our_types(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "type-echo", config=TYPED)
    for kind in (None, 0, 1, 0xAABBCCDD, 0xFFFFFFFE):
        async with session.open(type=kind) as stream:
            await stream.write(b"and data")
            stream.write_eof()
            assert await stream.read() == (kind or 0).to_bytes(4, "big") + b"and data"


async def test_we_see_gos_types(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=TYPED)
    for kind in (0, 1, 0xAABBCCDD, 0xFFFFFFFE):
        opened = await go.call("open", type=kind)
        async with await session.accept() as stream:
            assert (stream.id, stream.type) == (opened["stream"], kind)
            written = await go.call("write", handle=opened["handle"], n=WINDOW - 4)
            assert sha256(await stream.readexactly(WINDOW - 4)) == written["sha256"]
            stream.write_eof()
            assert (await go.call("read", handle=opened["handle"]))["eof"]


async def test_typed_streams_carry_data_both_ways(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "echo", config=TYPED)
    for size in (0, 1, WINDOW - 4, WINDOW, 1_000_000):
        await exchange(session, data_of(size), type=size)


async def test_a_type_needs_an_agreement(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way)
    with pytest.raises(UsageError, match="typed"):
        session.open(type=1)
    await exchange(session, b"all is well")
