"""The quirks of a Go peer, by their number in section 13 of docs/protocol.md: streams.

`test_quirks_session.py` has those of the session, `test_quirks_typed.py` those of types and
heartbeats. A test named `..._by_hand` plays our end with frames that our library never sends;
it shows what the library avoids, and tells us if a new release of Go behaves otherwise.
"""

# Without a test, because the other end can't see them, or can't bring them about:
#
# | no. | what                                     | why there is none                         |
# | --- | ---------------------------------------- | ----------------------------------------- |
# | 30  | two transport writes per frame           | on a byte stream only shorter segments    |
# | 32  | concurrent first writers lose their SYN  | found by reading, never reproduced        |
#
# Which release has which: no. 1, 11 and the FIN of no. 16 differ, and run with both.

from __future__ import annotations

import asyncio

import pytest

from muxado import ErrorCode, StreamReset

from .gopeer import GoError
from .helpers import KIB, WINDOW, data_of, exchange, sha256, until
from .meeting import Meeting, Way
from .raw import DATA, FIN, SYN, credit, data
from .test_session import hold

pytestmark = pytest.mark.anyio


# 3: SYN and FIN in one frame


async def test_quirk_03_our_fin_never_rides_on_the_syn(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "source:1000")
    for written in (b"", b"x", data_of(WINDOW)):
        async with session.open() as stream:
            await stream.write(written)
            stream.write_eof()
            assert len(await stream.read()) == 1000  # Go could answer
    assert (await go.call("stats"))["frames_in"]["syn_fin"] == 0


async def test_quirk_03_gos_syn_fin_can_be_answered(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    handle = (await go.call("open"))["handle"]
    await go.call("close-write", handle=handle)
    assert (await go.call("stats"))["frames_out"]["syn_fin"] == 1
    async with await session.accept() as stream:
        assert await stream.read() == b""
        await stream.write(b"an answer")
        stream.write_eof()
        reply = await go.call("read", handle=handle)
        assert (reply["n"], reply["eof"]) == (9, True)


async def test_quirk_03_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    raw.send(data(3, b"all", SYN | FIN))
    handle = (await go.event("held"))["handle"]
    assert (await go.call("read", handle=handle))["n"] == 3
    with pytest.raises(GoError) as caught:
        await go.call("write", handle=handle, n=1)
    assert caught.value.code == ErrorCode.STREAM_CLOSED


# 4: a Close with unread data is a FIN and nothing else


async def test_quirk_04_a_stalled_sender_finds_out(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    stream, handle = await hold(session, go)
    await stream.write(data_of(WINDOW + 100_000))
    await until(lambda: session.stats().stalls > 0, session)
    while (await go.call("stats"))["frames_in"]["data_bytes"] < WINDOW:
        pass
    await go.call("close", handle=handle)
    assert await stream.wait_reset() == ErrorCode.STREAM_CLOSED
    with pytest.raises(StreamReset):
        await stream.write(b"x")
    assert (await go.call("stats"))["frames_out"]["wndinc"] == 0


async def test_quirk_04_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    raw.send(data(3, bytes(WINDOW), SYN))
    await raw.ping()
    await go.call("close", handle=(await go.event("held"))["handle"])
    assert (await raw.wait_for(DATA, 3)).flags == FIN
    await raw.ping()
    counts = (await go.call("stats"))["frames_out"]
    assert (counts["rst_codes"], counts["wndinc"]) == (
        {"4": 2},
        0,
    )  # the two pings' answers
    raw.send(data(3))
    assert await raw.reset_code(3) == ErrorCode.STREAM_CLOSED


# 5: one RST per DATA frame


async def test_quirk_05_a_burst_of_resets(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    stream, handle = await hold(session, go)
    await go.call("close", handle=handle)
    assert await stream.read() == b""
    before = (await go.call("stats"))["frames_out"]["rst"]
    await stream.write(data_of(200 * KIB))  # several frames, before the first RST can come
    assert await stream.wait_reset() == ErrorCode.STREAM_CLOSED
    await session.ping()
    stats = await go.call("stats")
    assert stats["frames_out"]["rst"] - before >= 3
    assert stats["frames_in"]["rst"] == 0  # none of them was answered
    assert session.stats().resets_received == 1
    await go.call("behaviour", behaviour="echo")
    await exchange(session, b"all is well")


# 6: FIN more than once


async def test_quirk_06_fins_that_repeat(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    stream, handle = await hold(session, go)
    await go.call("close-write", handle=handle)
    assert await stream.read() == b""
    await stream.write(b"meanwhile")
    assert (await go.call("read", handle=handle, n=9))["n"] == 9
    for _ in range(3):
        await go.call("close", handle=handle)
    await session.ping()
    assert not session.closed
    assert stream.at_eof()
    stream.close()

    stream, handle = await hold(session, go)
    stream.reset()
    with pytest.raises(GoError):
        await go.call("read", handle=handle)
    await go.call("close", handle=handle)
    await session.ping()
    stats = await go.call("stats")
    assert stats["frames_in"]["rst_codes"].get("4", 0) == 0  # no FIN drew an answer
    assert stats["frames_out"]["fin"] >= 3


# 7: credit for dead streams


async def test_quirk_07_credit_for_dead_streams(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    finished, handle = await hold(session, go)
    await finished.write(data_of(1000))
    finished.write_eof()
    await go.call("close-write", handle=handle)
    assert await finished.wait_reset() is None  # over in both directions
    assert (await go.call("read", handle=handle, chunk=10))["n"] == 1000

    reset, handle = await hold(session, go)
    await reset.write(data_of(1000))
    await session.ping()
    reset.reset()
    with pytest.raises(GoError) as caught:
        await go.call("read", handle=handle, chunk=10)
    assert caught.value.reply["n"] == 1000

    await session.ping()
    stats = await go.call("stats")
    assert stats["frames_out"]["wndinc"] >= 100
    assert stats["frames_in"]["rst_codes"] == {"6": 1}
    assert not session.closed


# 15: a WNDINC of 0 is fatal


async def test_quirk_15_we_never_grant_nothing(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    for size in (1, 7, WINDOW // 2, WINDOW):
        handle = (await go.call("open"))["handle"]
        await go.call("write", handle=handle, n=size)
        async with await session.accept() as stream:
            assert await stream.read(0) == b""
            while size > 0:
                size -= len(await stream.read(max(1, size // 3)))
            assert await stream.read(0) == b""
    await exchange(session, data_of(WINDOW))
    assert not (await go.call("stats"))["ended"]


async def test_quirk_15_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    raw.send(data(3, b"", SYN), credit(3, 0))
    assert await raw.goaway() == (3, ErrorCode.PROTOCOL_ERROR)
    assert (await go.event("session-end"))["code"] == ErrorCode.PROTOCOL_ERROR


# 16: what is over the window is delivered all the same


async def test_quirk_16_we_never_send_over_the_window(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    streams = [await hold(session, go) for _ in range(3)]
    for stream, _ in streams:
        await stream.write(data_of(WINDOW + 1))
    while (await go.call("stats"))["frames_in"]["data_bytes"] < 3 * WINDOW:
        pass
    await session.ping()
    stats = await go.call("stats")
    assert stats["frames_in"]["data_bytes"] == 3 * WINDOW
    assert "3" not in stats["frames_out"]["rst_codes"]
    for stream, handle in streams:
        stream.write_eof()
        assert (await go.call("read", handle=handle))["sha256"] == sha256(data_of(WINDOW + 1))
        stream.close()


@pytest.mark.parametrize("fin", [False, True], ids=["open", "fin"])
async def test_quirk_16_by_hand(meeting: Meeting, release: str, fin: bool) -> None:
    raw, go = await meeting.meet_by_hand("hold", release=release)
    raw.send(data(3, b"", SYN), data(3, bytes(WINDOW + 1), FIN if fin else 0))
    handle = (await go.event("held"))["handle"]
    assert await raw.reset_code(3) == ErrorCode.FLOW_CONTROL_ERROR
    if fin and release == "v2.0.2":
        reply = await go.call("read", handle=handle)
        assert (reply["n"], reply["eof"]) == (WINDOW + 1, True)
    else:
        with pytest.raises(GoError) as caught:
            await go.call("read", handle=handle)
        assert caught.value.code == ErrorCode.FLOW_CONTROL_ERROR
        assert caught.value.reply["n"] == WINDOW + 1


# 19: data after FIN


async def test_quirk_19_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    raw.send(data(3, b"all", SYN), data(3, b"", FIN))
    handle = (await go.event("held"))["handle"]
    raw.send(data(3, b"more"), data(3, b"and more"))
    assert await raw.reset_code(3) == ErrorCode.STREAM_CLOSED
    await raw.ping()
    assert (await go.call("stats"))["frames_out"]["rst_codes"] == {"4": 2}  # and the ping's
    with pytest.raises(GoError) as caught:
        await go.call("read", handle=handle)
    assert (caught.value.reply["n"], caught.value.reply["eof"]) == (3, False)
    with pytest.raises(GoError):
        await go.call("write", handle=handle, n=1)


# 22: Close waits behind a blocked Write


async def test_quirk_22_gos_blocked_writer_gets_free(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    for how in ("close", "reset"):
        handle = (await go.call("open"))["handle"]
        writing = go.call("write", handle=handle, n=64 * WINDOW)
        stream = await session.accept()
        await until(lambda: session.stats().memory_held == WINDOW, session)
        closing = go.call("close", handle=handle)  # waits behind the write
        await session.ping()
        if how == "close":
            stream.close()
        else:
            stream.reset()
        with pytest.raises(GoError) as caught:
            await writing
        assert caught.value.code == (4 if how == "close" else 6)
        await closing
    assert (await go.call("stats"))["table"] == 0


# 23: an empty first write loses the SYN


async def test_quirk_23_gos_stream_without_a_syn(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    handle = (await go.call("open"))["handle"]
    await go.call("write", handle=handle, n=0)
    await go.call("write", handle=handle, n=100)
    with pytest.raises(GoError) as caught:
        await go.call("read", handle=handle)
    assert caught.value.code == ErrorCode.STREAM_CLOSED
    await exchange(session, b"all is well")
    assert session.stats().streams_accepted == 0


# 25: data for a stream that Go has not announced


async def test_quirk_25_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("none")
    opened = await go.call("open")
    raw.send(data(opened["stream"], b"early"))
    assert (await go.call("read", handle=opened["handle"], n=5))["n"] == 5


async def test_quirk_25_we_never_answer_before_the_syn(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    opened = await go.call("open")
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(session.accept())
        await session.ping()
        assert not accepting.done()
        await go.call("write", handle=opened["handle"], n=1)
    assert accepting.result().id == opened["stream"]
    accepting.result().close()


# 31: streams are only forgotten after FIN both ways, or Close


async def test_quirk_31_go_keeps_streams_that_are_not_closed(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    for _ in range(5):
        stream, handle = await hold(session, go)
        async with stream:
            stream.write_eof()
            assert (await go.call("read", handle=handle))["eof"]
    await session.ping()
    assert session.stats().streams == 0  # we have closed them: they are gone here
    assert (await go.call("stats"))["table"] == 5
