"""The quirks of a Go peer, by their number in docs/protocol.md section 13: types, heartbeats."""

from __future__ import annotations

import pytest

from muxado import Config, Session, Stream

from .gopeer import GoError, GoPeer
from .helpers import echo, exchange, running
from .meeting import Meeting, Way
from .raw import SYN, data

pytestmark = pytest.mark.anyio

TYPED = Config(typed=True)
KIND = 0xAABBCCDD
HEARTBEAT = b"\xff\xff\xff\xff"


# 12: Go takes the type with one short read


async def test_quirk_12_our_type_is_in_one_frame(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold", config=TYPED)
    streams = []
    for announce in ("eagerly", "by a write", "by a read", "by the end"):
        stream = session.open(type=KIND, eager=announce == "eagerly")
        streams.append(stream)
        if announce == "by a write":
            await stream.write(b"x")
        elif announce == "by the end":
            stream.write_eof()
        elif announce == "by a read":
            async with running(stream.read(1)):
                await session.ping()
        held = await go.event("held")
        assert (held["stream"], held["type"]) == (stream.id, KIND), announce
    counts = (await go.call("stats"))["frames_in"]
    assert counts["syn"] == 4
    for stream in streams:
        stream.reset()


async def test_quirk_12_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold", typed=True)
    raw.send(data(3, b"\xaa\xbb", SYN))
    held = await go.event("held")
    assert held["type"] == 0xAABB0000
    raw.send(data(3, b"\xcc\xdd"))
    assert (await go.call("read", handle=held["handle"], n=2, show=True))["data"] == "ccdd"


async def test_quirk_12_we_take_a_type_however_it_is_cut(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=TYPED)
    handle = (await go.call("open", untyped=True))["handle"]
    for byte in ("aa", "bb", "cc", "dd", "01"):
        await go.call("write", handle=handle, data=byte)
    async with await session.accept() as stream:
        assert stream.type == KIND
        assert await stream.read(1) == b"\x01"


# 13: a type that does not come blocks Go's accept loop


async def test_quirk_13_we_leave_no_syn_without_its_type(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "type-echo", config=TYPED)
    idle = [session.open(type=number, eager=True) for number in range(10)]
    await exchange_type(session)  # so none of them is in its way
    counts = (await go.call("stats"))["frames_in"]
    assert counts["syn"] == 11
    # Every SYN had its type with it: nothing but the last stream's FIN and pings came besides.
    assert counts["data_bytes"] == 11 * 4
    for stream in idle:
        stream.reset()
    await session.ping()
    assert (await go.call("stats"))["accept_errors"] == 0


async def exchange_type(session: Session) -> None:
    async with session.open(type=KIND) as stream:
        stream.write_eof()
        assert await stream.read() == KIND.to_bytes(4, "big")


async def test_quirk_13_a_type_that_does_not_come_blocks_no_stream_here(
    meeting: Meeting, way: Way
) -> None:
    session, go = await meeting.meet(way, config=Config(typed=True, type_timeout=0.5))
    late = (await go.call("open", untyped=True))["handle"]
    await go.call("write", handle=late, data="aabb")
    for end in ("close", "close-write"):  # SYN and FIN, and no type at all
        empty = (await go.call("open", untyped=True))["handle"]
        await go.call(end, handle=empty)
    async with running(session.serve(echo)):
        for _ in range(10):
            assert (await go.call("check", n=1000, type=7))["received"] == 1000
        with pytest.raises(GoError) as caught:
            await go.call("read", handle=late)  # reset when the time was over
        assert caught.value.code == 6
    assert session.stats().streams_accepted == 10


async def test_quirk_13_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold", typed=True)
    raw.send(data(3, b"", SYN), data(5, b"\xaa\xbb\xcc\xdd", SYN))
    await raw.ping()
    assert (await go.call("stats"))["accepted"] == 0
    raw.send(data(3, b"\x00\x00\x00\x01"))
    assert (await go.event("held", stream=3))["type"] == 1
    assert (await go.event("held", stream=5))["type"] == KIND


# 26 to 29: Go's heartbeat, with a peer that is not what it expects. Our session is an untyped
# one here, so that the test itself is what answers, or doesn't.


async def heartbeat_stream(meeting: Meeting, way: Way) -> tuple[Session, GoPeer, Stream]:
    """Meet a Go peer with a heartbeat; return the stream on which its beats come."""
    session, go = await meeting.meet(
        way, heartbeat=True, heartbeat_interval="50ms", heartbeat_tolerance="200ms"
    )
    stream = await session.accept()
    assert await stream.readexactly(4) == HEARTBEAT
    return session, go, stream


async def test_quirk_26_a_late_echo(meeting: Meeting, way: Way) -> None:
    session, go, stream = await heartbeat_stream(meeting, way)
    beat = await stream.readexactly(4)
    assert (await go.event("heartbeat"))["timed_out"]
    assert not (await go.call("beat"))["answered"]
    async with running(stream.readexactly(1)) as another:
        assert await session.ping() > 0
        assert not another.done()  # one beat stays the only one
    await stream.write(beat)
    assert not (await go.event("heartbeat"))["timed_out"]
    beat = await stream.readexactly(4)
    await stream.write(beat)
    assert not (await go.call("beat"))["answered"]  # its check goroutine hangs for good
    assert not session.closed
    stream.close()


@pytest.mark.parametrize("end", ["wrong echo", "reset", "fin"])
async def test_quirk_27_go_gives_its_heartbeat_up(meeting: Meeting, way: Way, end: str) -> None:
    session, go, stream = await heartbeat_stream(meeting, way)
    beat = await stream.readexactly(4)
    if end == "wrong echo":
        await stream.write(bytes(byte ^ 0xFF for byte in beat))
    elif end == "fin":
        stream.write_eof()
    else:
        stream.reset()
    if end != "reset":
        assert await stream.read() == b""
        stream.close()
    assert (await go.event("heartbeat"))["timed_out"]
    assert not (await go.call("beat"))["answered"]
    await exchange_by_hand(session)
    stats = await go.call("stats")
    assert (stats["ended"], stats["frames_out"]["syn"]) == (False, 1)


async def exchange_by_hand(session: Session) -> None:
    """Exchange something over a typed stream, from a session that is not typed."""
    async with session.open() as stream:
        await stream.write(KIND.to_bytes(4, "big") + b"all is well")
        stream.write_eof()
        assert await stream.read() == b"all is well"


async def test_quirk_28_gos_responder_does_not_end(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, heartbeat=True, heartbeat_interval="1h")
    # Go opens the stream of its own heartbeat, which counts as well, at a moment of its own.
    while (stats := await go.call("stats"))["frames_out"]["syn"] == 0:
        await session.ping()
    before = stats["table"]
    for count in (1, 2):
        stream = session.open()
        await stream.write(HEARTBEAT)
        for beat in (b"\x00\x00\x00\x01", b"beat"):
            await stream.write(beat)
            assert await stream.readexactly(4) == beat
        stream.write_eof()
        async with running(stream.read()) as reading:
            await session.ping()
            assert not reading.done()
        stream.close()
        await session.ping()
        assert (await go.call("stats"))["table"] == before + count
        assert session.stats().streams == 1  # the one of Go's own heartbeat
    await exchange_by_hand(session)


async def test_quirk_28_we_end_when_the_requester_does(meeting: Meeting, way: Way) -> None:
    """Our own responder does FIN back, so nothing stays in Go's table."""
    session, go = await meeting.meet(way, "echo", config=TYPED)
    handle = (await go.call("open", untyped=True))["handle"]
    await go.call("write", handle=handle, data="ffffffff" + "00000001")
    assert (await go.call("read", handle=handle, n=4, show=True))["data"] == "00000001"
    await go.call("close-write", handle=handle)
    assert (await go.call("read", handle=handle))["eof"]
    assert (await go.call("stats"))["table"] == 0
    await exchange(session, b"all is well")


# 29: Heartbeat.AcceptStream does not filter


async def test_quirk_29_a_heartbeat_that_gos_application_is_given(
    meeting: Meeting, way: Way
) -> None:
    session, go = await meeting.meet(
        way, "hold", heartbeat=True, heartbeat_interval="1h", accept_stream=True
    )
    async with session.open() as stream:
        await stream.write(HEARTBEAT + b"beat")
        held = await go.event("held", stream=stream.id)
        assert held["type"] == int.from_bytes(HEARTBEAT, "big")
        reply = await go.call("read", handle=held["handle"], n=4, show=True)
        assert bytes.fromhex(reply["data"]) == b"beat"
        async with running(stream.read(1)) as echo:
            await session.ping()
            assert not echo.done()  # so a beat tells nothing about the peer
