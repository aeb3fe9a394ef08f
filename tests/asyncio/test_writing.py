"""What the writes of a stream take, when they wait, and what they raise."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

import muxado
from muxado import ErrorCode

from ..fixtures import NewPair
from ..helpers import cancel, opened, running
from ..raw import DATA, SYN, Frame, raw_peer
from ..transports import Connect, Ends, over_tcp

pytestmark = pytest.mark.anyio

SMALL = {"initial_window": 1000, "max_window": 1000, "write_high_water": 500}


@pytest.fixture
def transport() -> Connect:
    """One will do: what is written doesn't depend on it."""
    return over_tcp


async def test_writes_take_any_bytes(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"bytes,")
        await stream.write(bytearray(b"bytearray,"))
        await stream.write(memoryview(b"-memoryview,-")[1:-1])
        await stream.write(memoryview(array("H", [0x3130, 0x3332])))
        await stream.write(memoryview(b"a.b.c.")[::2])
        await stream.write(b"")
        stream.write_eof()
        numbers = array("H", [0x3130, 0x3332]).tobytes()
        assert await other.read() == b"bytes,bytearray,memoryview," + numbers + b"abc"


async def test_what_may_change_is_copied(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        data = bytearray(b"as it was")
        await stream.write(data)
        await stream.writelines([memoryview(data)])
        data[:] = b"different"
        data.append(0)
        assert await other.readexactly(18) == b"as it was" * 2


@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]], ids=repr)
async def test_nothing_else_is_taken(session_pair: Ends, wrong: Any) -> None:
    async with opened(*session_pair) as (stream, other):
        with pytest.raises(TypeError):
            await stream.write(wrong)
        with pytest.raises(TypeError):
            await stream.writelines([b"not even this", wrong])
        await stream.write(b"fine")
        assert await other.read(100) == b"fine"


async def test_writelines_writes_each_chunk(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):

        def chunks() -> Iterator[bytes]:
            yield b"one "
            yield b"two "
            yield b""
            yield b"three"

        await stream.writelines(chunks())
        await stream.writelines([])
        stream.write_eof()
        assert await other.read() == b"one two three"


async def test_many_writes_share_frames(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        before = session_pair.client.stats().frames_sent
        for _ in range(1000):
            await stream.write(b"tiny")
        assert await other.readexactly(4000) == b"tiny" * 1000
        assert session_pair.client.stats().frames_sent - before < 10


async def test_a_higher_priority_goes_first() -> None:
    async with (
        raw_peer() as (session, peer),
        session.open(priority=-1) as bulk,
        session.open() as urgent,
    ):
        await bulk.write(b"b" * 20_000)
        await urgent.write(b"now")
        assert await peer.frame() == Frame(DATA, SYN, urgent.id, b"now")
        frame = await peer.frame()
        assert (frame.flags, frame.stream_id) == (SYN, bulk.id)
        bulk.priority = 3
        await urgent.write(b"later")
        await bulk.write(b"first")
        rest = frame.payload
        while (frame := await peer.frame()).stream_id == bulk.id:
            rest += frame.payload
        assert rest == b"b" * 20_000 + b"first"
        assert frame.payload == b"later"


async def test_waiting_writers_are_served_in_order_and_whole(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 2000)
        async with asyncio.TaskGroup() as group:
            for letter in (b"a", b"b", b"c", b"d"):
                group.create_task(stream.write(letter * 3000))
            group.create_task(stream.writelines([b"e" * 1000, b"f" * 1000]))
            arrived = await other.readexactly(16_000)
        expected = b"." * 2000 + b"".join(c * 3000 for c in (b"a", b"b", b"c", b"d"))
        assert arrived == expected + b"e" * 1000 + b"f" * 1000


async def test_a_late_writer_does_not_overtake_one_that_waits(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 2000)
        written = []

        async def write(data: bytes) -> None:
            await stream.write(data)
            written.append(data)

        async with running(write(b"first")) as first, running(write(b"second")) as second:
            await stream.session.ping()
            assert written == []
            arrived = await other.readexactly(2000)
            await write(b"third")
            await first
            await second
        assert written == [b"first", b"second", b"third"]
        assert arrived + await other.readexactly(16) == b"." * 2000 + b"firstsecondthird"


async def test_a_cancelled_writer_does_not_hold_up_the_next(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 2000)
        async with running(stream.write(b"gone")) as gone, running(stream.write(b"kept")) as kept:
            await stream.session.ping()
            await cancel(gone)
            arrived = await other.readexactly(2004)
            await kept
        assert arrived == b"." * 2000 + b"kept"


async def test_a_write_that_times_out_has_queued_nothing(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 2000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stream.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.write(b"late"), 0.02)
        stream.write_eof()
        assert await other.read() == b"." * 2000


async def test_writes_fail_after_write_eof(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        stream.write_eof()
        assert stream.is_closing()
        for _ in range(2):
            with pytest.raises(muxado.StreamClosed):
                await stream.write(b"x")
        with pytest.raises(muxado.StreamClosed):
            await stream.writelines([b"x"])
        await other.write(b"reading goes on")
        assert await stream.read(100) == b"reading goes on"


async def test_writes_fail_after_close(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        assert not stream.is_closing()
        stream.close()
        assert stream.is_closing()
        with pytest.raises(muxado.StreamClosed):
            await stream.write(b"x")
        await stream.wait_closed()
        with pytest.raises(muxado.StreamClosed):
            await stream.write(b"x")
        assert await other.read() == b""


async def test_writes_fail_after_a_reset_by_either_side(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        stream.reset(8)
        await other.wait_reset()
        for end, by_peer in ((stream, False), (other, True)):
            assert end.is_closing()
            with pytest.raises(muxado.StreamReset) as caught:
                await end.write(b"x")
            assert (caught.value.code, caught.value.by_peer) == (8, by_peer)


@pytest.mark.parametrize("how", ["reset", "close", "peer resets", "session closes"])
async def test_a_writer_that_waits_is_told_of_the_end(new_pair: NewPair, how: str) -> None:
    ends = await new_pair(**SMALL)
    async with opened(*ends) as (stream, other):
        await stream.write(b"." * 2000)
        async with running(stream.write(b"x")) as first, running(stream.write(b"y")) as second:
            await ends.client.ping()
            if how == "reset":
                stream.reset()
            elif how == "close":
                stream.close()
            elif how == "peer resets":
                other.reset()
            else:
                ends.client.close()
            error = {
                "close": muxado.StreamClosed,
                "session closes": muxado.SessionClosed,
            }.get(how, muxado.StreamReset)
            for writing in (first, second):
                with pytest.raises(error):
                    await writing


async def test_close_sends_what_was_written_before_it(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 5000)
        stream.close()
        async with running(stream.wait_closed()) as closing:
            await stream.session.ping()
            assert not closing.done()
            assert await other.read() == b"." * 5000
            await closing


async def test_a_cancelled_wait_closed_changes_nothing(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 5000)
        stream.close()
        async with running(stream.wait_closed()) as closing:
            await stream.session.ping()
            await cancel(closing)
        assert await other.read() == b"." * 5000
        await stream.wait_closed()


async def test_reset_drops_what_is_queued(new_pair: NewPair) -> None:
    async with opened(*await new_pair(**SMALL)) as (stream, other):
        await stream.write(b"." * 5000)
        await stream.session.ping()
        stream.reset()
        assert stream.session.stats().bytes_queued == 0
        assert await other.readexactly(1000) == b"." * 1000
        with pytest.raises(muxado.StreamReset) as caught:
            await other.read(1)
        assert caught.value.code == ErrorCode.STREAM_CANCELLED
