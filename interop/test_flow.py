"""Slow readers, stalled senders, and windows that grow."""

from __future__ import annotations

import asyncio
import hashlib
from time import monotonic

import pytest
from tests.patience import patience

from muxado import Config, ErrorCode, Session, Stream, StreamReset

from .gopeer import GoError, GoPeer
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
from .test_session import hold

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
        assert 0 < await session.ping() < patience(5)
        done = await go.event("stream-done", timeout=15)
        await sending
    assert (done["read"], done["read_sha256"]) == (len(data), sha256(data))
    stats = await go.call("stats")
    assert stats["frames_out"]["rst_codes"].keys() <= {"4"}  # our pings' answers


async def test_we_read_slowly(meeting: Meeting, way: Way) -> None:
    # How far a window grows depends on how fast this machine lets both ends go; so it may not.
    session, go = await meeting.meet(way, config=Config(max_window=WINDOW))
    handle = (await go.call("open"))["handle"]
    size = 32 * MIB
    most = WINDOW
    wanted = (await go.call("digest", n=size, seed=1))["sha256"]
    await go.call("write", handle=handle, n=size, seed=1, background=True)
    stream = await session.accept()
    await until(lambda: session.stats().memory_held == WINDOW, session)
    checksum = hashlib.sha256()
    count = 0
    while count < size:
        piece = await stream.read(50_000)
        checksum.update(piece)
        count += len(piece)
        assert session.stats().memory_held <= most
        state = await go.call("stream", handle=handle)
        assert state["writing"] or count + most >= size
    assert checksum.hexdigest() == wanted
    assert (await go.event("done", cmd="write"))["ok"]
    stream.close()


async def test_an_unread_stream_stops_no_other(meeting: Meeting, way: Way) -> None:
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
    """Neither end reads until both are stuck; then everything arrives."""
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
        await go.call("write", handle=handle, n=size, seed=1, background=True)
        stream = await session.accept()
        got = b"".join([await stream.readexactly(MIB) for _ in range(size // MIB)])
        assert sha256(got) == wanted
        stats = await go.call("stats")
        way_to_us = relay.to_dialler if way.we_dial else relay.to_dialled
        # Go writes as much as it has credit for in one frame.
        assert stats["frames_out"]["largest_data"] > 2 * WINDOW
        assert way_to_us.most_in_flight > 8 * WINDOW
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

STALLED = 1000
AT_ONCE = 100
SMALL_WINDOW = 16 * KIB  # so that a thousand full ones are quickly filled


@pytest.mark.big
@pytest.mark.patience(60)
@pytest.mark.parametrize("when", ["before", "with", "after"])
async def test_a_stalled_sender_to_a_closed_stream_never_hangs(
    meeting: Meeting, way: Way, when: str
) -> None:
    """Go closes with a whole window unread, and says nothing but FIN: all writers must find out.

    They run out of credit before the FIN is there, at about the same time, or after it.
    """
    session, go = await meeting.meet(
        way, "hold", config=Config(initial_window=SMALL_WINDOW), window=SMALL_WINDOW
    )
    for stalled in range(AT_ONCE, STALLED + 1, AT_ONCE):
        full = await asyncio.gather(*[fill(session, go) for _ in range(AT_ONCE)])
        while (await go.call("stats"))["frames_in"]["data_bytes"] < stalled * SMALL_WINDOW:
            pass
        if when == "before":
            async with asyncio.TaskGroup() as group:
                for stream, _ in full:
                    group.create_task(check_finds_out(stream))
                while session.stats().stalls < stalled:
                    await session.ping()
                for _, handle in full:
                    go.call("close", handle=handle)
        else:
            await asyncio.gather(*[close_and_write(go, *one, when) for one in full])
        assert session.stats().streams == 0
    assert session.stats().stalls >= STALLED
    stats = await go.call("stats")
    # No credit has freed a sender, and no data: the answers to the probes have.
    assert stats["frames_out"]["wndinc"] == 0
    assert stats["frames_in"]["data_bytes"] == STALLED * SMALL_WINDOW
    assert stats["frames_out"]["rst_codes"]["4"] >= STALLED


async def fill(session: Session, go: GoPeer) -> tuple[Stream, int]:
    """Open a stream that Go holds, and use up its window."""
    stream, handle = await hold(session, go)
    await stream.write(bytes(SMALL_WINDOW))
    return stream, handle


async def close_and_write(go: GoPeer, stream: Stream, handle: int, when: str) -> None:
    """Have Go close, and write on at about the time of its FIN, or after it."""
    await go.call("close", handle=handle)  # the reply may overtake the FIN, or the FIN the reply
    if when == "after":
        assert await stream.read() == b""
    await check_finds_out(stream)


async def check_finds_out(stream: Stream) -> None:
    with pytest.raises(StreamReset) as caught:
        await write_forever(stream)
    assert (caught.value.code, caught.value.by_peer) == (ErrorCode.STREAM_CLOSED, True)


async def write_forever(stream: Stream) -> None:
    while True:
        await stream.write(bytes(100_000))  # more than may wait here


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
