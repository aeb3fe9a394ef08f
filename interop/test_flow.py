"""Slow readers, stalled senders, and windows that grow."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from muxado import Config, ErrorCode, Stream, StreamReset

from .gopeer import GoError
from .helpers import (
    KIB,
    MIB,
    WINDOW,
    data_of,
    digest,
    echo,
    exchange,
    running,
    send,
    sha256,
    until,
)
from .meeting import Meeting, Way
from .relay import Relay

pytestmark = pytest.mark.anyio

DELAY = 0.05  # each way
ROUND_TRIP = 2 * DELAY
FIXED_RATE = WINDOW / ROUND_TRIP  # what a window of 256 KiB allows


# Slow readers


async def test_go_reads_slowly(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, f"slow:{4 * MIB}")
    data = data_of(3 * MIB)
    async with session.open() as stream, running(send(stream, data)) as sending:
        await until(lambda: session.stats().stalls > 0, session)
        # What Go doesn't read waits here, and no more than `write_high_water` and one write.
        assert session.stats().bytes_queued <= session.config.write_high_water + 256 * KIB
        assert 0 < await session.ping() < 5
        done = await go.event("stream-done", timeout=15)
        await sending
    assert (done["read"], done["read_sha256"]) == (len(data), sha256(data))
    stats = await go.call("stats")
    assert stats["frames_out"]["rst_codes"].keys() <= {"4"}  # our pings' answers


async def test_we_read_slowly(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    handle = (await go.call("open"))["handle"]
    size = 2 * MIB
    wanted = (await go.call("digest", n=size, seed=1))["sha256"]
    await go.call("write", handle=handle, n=size, seed=1, background=True)
    stream = await session.accept()
    await until(lambda: session.stats().memory_held == WINDOW, session)
    whole = b""
    while len(whole) < size:
        whole += await stream.read(50_000)
        assert session.stats().memory_held <= 2 * MIB
        state = await go.call("stream", handle=handle)  # a pause as long as Go's answer takes
        assert state["writing"] or len(whole) + session.stats().memory_held >= size - MIB
    assert sha256(whole) == wanted
    assert (await go.event("done", cmd="write"))["ok"]
    stream.close()


async def test_a_stream_that_nobody_reads_stops_no_other(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    handle = (await go.call("open"))["handle"]
    await go.call("write", handle=handle, n=2 * WINDOW, background=True)
    unread_by_us = await session.accept()
    unread_by_go = session.open()
    await unread_by_go.write(data_of(2 * WINDOW))
    held = (await go.event("held"))["handle"]
    await until(lambda: session.stats().memory_held == WINDOW, session)
    await go.call("behaviour", behaviour="echo")
    async with running(session.serve(echo)):
        await asyncio.gather(
            *[exchange(session, data_of(MIB, number)) for number in range(10)],
            go.call("many", count=10, min=MIB, max=MIB),
        )
    assert session.stats().bytes_queued == WINDOW
    assert (await go.call("stream", handle=handle))["writing"]
    unread_by_go.write_eof()
    assert (await go.call("read", handle=held))["sha256"] == sha256(data_of(2 * WINDOW))
    assert len(await unread_by_us.readexactly(2 * WINDOW)) == 2 * WINDOW
    unread_by_go.close()
    unread_by_us.close()


async def test_both_ends_write_with_full_windows(meeting: Meeting, way: Way) -> None:
    """Nobody reads until both are stuck; then everything arrives."""
    session, _ = await meeting.meet(way)
    data = data_of(8 * MIB)
    streams = [session.open() for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(send(stream, data))
        # Go's echo gets stuck in Write, and then reads no more either.
        await until(lambda: session.stats().memory_held == 4 * WINDOW, session)
        await until(lambda: session.stats().bytes_queued > 4 * 64 * KIB, session)
        for stream in streams:
            group.create_task(all_of_it(stream, data))
    for stream in streams:
        stream.close()


async def all_of_it(stream: Stream, data: bytes) -> None:
    assert await digest(stream) == (len(data), sha256(data))


# A window of another size than the usual one


@pytest.mark.parametrize("window", [1000, 1 * MIB])
async def test_another_window_agreed(meeting: Meeting, way: Way, window: int) -> None:
    config = Config(initial_window=window)
    session, go = await meeting.meet(way, config=config, window=window)
    data = data_of(200_000)
    await exchange(session, data)
    async with running(session.serve(echo)):
        assert (await go.call("check", n=200_000, chunk=-1))["received"] == 200_000
    stats = await go.call("stats")
    assert stats["frames_in"]["largest_data"] <= window
    assert stats["frames_out"]["rst_codes"].keys() <= {"4"}


# Windows that grow


@pytest.mark.big
@pytest.mark.patience(40)
async def test_the_window_grows_with_a_go_sender(meeting: Meeting, way: Way) -> None:
    size = 64 * MIB
    async with Relay(delay=DELAY) as relay:
        session, go = await meeting.meet(way, relay=relay)
        wanted = (await go.call("digest", n=size, seed=1))["sha256"]
        handle = (await go.call("open"))["handle"]
        started = monotonic()
        await go.call("write", handle=handle, n=size, seed=1, background=True)
        stream = await session.accept()
        got = b"".join([await stream.readexactly(MIB) for _ in range(size // MIB)])
        seconds = monotonic() - started
        assert sha256(got) == wanted
        stats = await go.call("stats")
        way_to_us = relay.to_dialler if way.we_dial else relay.to_dialled
        # Go writes as much as it has credit for in one frame.
        assert stats["frames_out"]["largest_data"] > 2 * WINDOW
        assert way_to_us.most_in_flight > 8 * WINDOW
        assert size / seconds > 4 * FIXED_RATE
        assert session.stats().min_rtt >= ROUND_TRIP
        stream.close()


async def test_a_fixed_window_keeps_its_rate(meeting: Meeting, way: Way) -> None:
    """The measure of the test above: without tuning, nothing grows."""
    size = 2 * MIB
    async with Relay(delay=DELAY) as relay:
        session, go = await meeting.meet(way, relay=relay, config=Config(max_window=WINDOW))
        handle = (await go.call("open"))["handle"]
        started = monotonic()
        await go.call("write", handle=handle, n=size, background=True)
        stream = await session.accept()
        await stream.readexactly(size)
        assert size / (monotonic() - started) < 2 * FIXED_RATE
        way_to_us = relay.to_dialler if way.we_dial else relay.to_dialled
        assert way_to_us.most_in_flight < 2 * WINDOW
        assert (await go.call("stats"))["frames_out"]["largest_data"] <= WINDOW
        stream.close()


# Stalled senders


@pytest.mark.big
@pytest.mark.patience(60)
@pytest.mark.parametrize("delay", ["0s", "5ms"])
async def test_a_stalled_sender_to_a_closed_stream_never_hangs(
    meeting: Meeting, way: Way, delay: str
) -> None:
    """Go closes without reading, and says nothing but FIN: a thousand writers must find out."""
    session, go = await meeting.meet(way, f"close-unread:{delay}", report="none", backlog=2000)
    limit = asyncio.Semaphore(100)
    data = data_of(WINDOW + 100_000)

    async def stall() -> None:
        async with limit:
            stream = session.open()
            with pytest.raises(StreamReset) as caught:
                await write_forever(stream, data)
            assert (caught.value.code, caught.value.by_peer) == (
                ErrorCode.STREAM_CLOSED,
                True,
            )

    await asyncio.gather(*[stall() for _ in range(1000)])
    assert session.stats().streams == 0
    assert (await go.call("stats"))["accepted"] == 1000


async def write_forever(stream: Stream, data: bytes) -> None:
    while True:
        await stream.write(data)


async def test_gos_stalled_sender_finds_out_that_we_have_closed(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    for _ in range(20):
        handle = (await go.call("open"))["handle"]
        writing = go.call("write", handle=handle, n=64 * WINDOW, timeout=5)
        (await session.accept()).close()
        with pytest.raises(GoError) as caught:
            await writing
        assert caught.value.code == ErrorCode.STREAM_CLOSED
    assert session.stats().memory_held == 0
