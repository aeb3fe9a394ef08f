"""The quirks of a Go peer, by their number in docs/protocol.md section 13: sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.inside import set_next_id

from muxado import (
    Config,
    ErrorCode,
    MuxadoError,
    PeerGone,
    SessionError,
    StreamRefused,
    StreamsExhausted,
)

from .gopeer import GoError, GoPeer
from .helpers import (
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
from .meeting import USUAL_WAYS, Meeting, Way
from .raw import FIN, SYN, data, frame, go_away
from .relay import Relay
from .test_session import hold

pytestmark = pytest.mark.anyio

PAD = "000000f000000000"


# 1: GOAWAY eats 8 bytes too many


async def test_quirk_01_the_pad_feeds_go(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, "hold", release=release)
    stream, handle = await hold(session, go)
    for number in range(3):
        session.go_away(number, b"again")
        await stream.write(b"right behind it")
        assert (await go.call("read", handle=handle, n=15))["n"] == 15
    await go.event("goaway")
    assert (await go.call("stats"))["frames_in"]["unknown"] == (1 if release == "v2.0.2" else 0)
    new, _ = await hold(session, go)  # and a SYN is not eaten either
    session.close()
    end = (await go.call("wait"))["end"]
    assert end["remote_code"] == 0
    assert end["debug_hex"] == b"again".hex() + (PAD if release == "v2.0.1" else "")
    del new


async def test_quirk_01_the_last_go_away(meeting: Meeting, way: Way, release: str) -> None:
    """Before the connection's end there is no pad, unless a last ping comes between."""
    session, go = await meeting.meet(way, "hold", release=release)
    session.close()
    end = (await go.call("wait"))["end"]
    counts = (await go.call("stats"))["frames_in"]
    pinged = counts["data"]
    assert pinged == (1 if way.tls else 0)  # TLS can't be half-closed: Go must have all before
    assert (end["code"], end["remote_code"]) == (ErrorCode.PEER_EOF, 0)
    assert end["debug_hex"] == (PAD if pinged and release == "v2.0.1" else "")
    assert counts["unknown"] == (1 if pinged and release == "v2.0.2" else 0)


async def test_quirk_01_by_hand(meeting: Meeting, release: str) -> None:
    raw, go = await meeting.meet_by_hand("hold", release=release)
    raw.send(go_away(0), data(3, b"", SYN), data(5, b"", SYN))
    await raw.ping()
    # The older one has taken the first SYN for debug text.
    accepted = (await go.call("stats"))["frames_in"]["syn"]
    assert accepted == (2 if release == "v2.0.2" else 1)


# 2: much debug text


async def test_quirk_02_our_debug_text_is_short(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, "hold", release=release)
    stream, handle = await hold(session, go)
    session.go_away(0, b"x" * (2 * MIB))
    await stream.write(b"still in step")
    assert (await go.call("read", handle=handle, n=13))["n"] == 13
    session.close()
    end = (await go.call("wait"))["end"]
    assert end["debug"].startswith("x" * 128)
    assert end["debug_len"] == 128 + (8 if release == "v2.0.1" else 0)


@pytest.mark.parametrize("beyond", [0, 8])
async def test_quirk_02_by_hand(meeting: Meeting, release: str, beyond: int) -> None:
    """What is beyond a mebibyte of debug text is read as frames."""
    raw, go = await meeting.meet_by_hand("hold", release=release)
    text = bytes(MIB) + data(5, b"", SYN)
    raw.send(go_away(0, 0, text[: MIB + beyond]), data(3, b"", SYN))
    if beyond:
        await go.event("held", stream=5)  # comes from a goroutine of its own, in any order
    await go.event("held", stream=3)
    await raw.ping()
    assert go.seen("held", stream=5) == 0


# 8: the last id can be lower than what was accepted


async def test_quirk_08_gos_last_id_is_not_its_highest(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    low, high = session.open(), session.open()
    handles = {}
    for stream in (high, low):
        await stream.write(b"x")
        held = await go.event("held")
        handles[held["stream"]] = held["handle"]
    await go.call("write", handle=handles[high.id], data="01")
    assert await high.read(1) == b"\x01"
    await go.call("goaway")  # says that `low` was the last
    await session.ping()
    for stream in (low, high):
        async with running(send(stream, data_of(MIB))):
            reply = await go.call("read", handle=handles[stream.id])
            assert reply["n"] == 1 + MIB
        await go.call("close", handle=handles[stream.id])
        assert await stream.read() == b""
        stream.close()


async def test_quirk_08_our_last_id_is_the_highest(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    low, high = [(await go.call("open")) for _ in range(2)]
    async with running(session.serve(echo)):
        for opened in (high, low):
            await go.call("write", handle=opened["handle"], n=1)
            await go.call("read", handle=opened["handle"], n=1)
        session.go_away()
        assert (await go.event("goaway"))["last_id"] == high["stream"]
        for opened in (high, low):
            await go.call("write", handle=opened["handle"], n=10)
            assert (await go.call("read", handle=opened["handle"], n=10))["n"] == 10
            await go.call("close-write", handle=opened["handle"])
            assert (await go.call("read", handle=opened["handle"]))["eof"]


# 9: a refused stream stays in Go's table


async def test_quirk_09_our_reset_frees_gos_zombies(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "none", backlog=5)
    streams = [session.open(eager=True) for _ in range(50)]
    await until(lambda: session.stats().resets_received == 45, session)
    await session.ping()
    stats = await go.call("stats")
    assert stats["table"] == 5
    assert stats["frames_out"]["rst_codes"]["9"] == 45
    assert stats["frames_in"]["rst"] == 45
    for stream in streams[:5]:
        stream.reset()
    for stream in streams[5:]:
        with pytest.raises(StreamRefused):
            await stream.read()


async def test_quirk_09_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("none", backlog=1)
    raw.send(data(3, b"", SYN), data(5, b"", SYN))
    assert await raw.reset_code(5) == ErrorCode.ACCEPT_QUEUE_FULL
    raw.send(data(5, b"swallowed"), data(5, b"", FIN))
    await raw.ping()
    stats = await go.call("stats")
    assert (stats["table"], stats["frames_out"]["rst_codes"]) == (2, {"9": 1, "4": 1})


# 10: SYN with payload to a Go that has sent GOAWAY


async def test_quirk_10_no_syn_after_gos_go_away(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    stream, handle = await hold(session, go)
    opened_before = session.open()
    await go.call("goaway")
    await session.ping()
    with pytest.raises(PeerGone):
        session.open()
    with pytest.raises(StreamRefused):
        await opened_before.write(b"\x00\x00\x05\x00 not a header, we hope")
    async with running(send(stream, data_of(MIB))):
        assert (await go.call("read", handle=handle))["sha256"] == sha256(data_of(MIB))
    assert (await go.call("stats"))["frames_in"]["syn"] == 1
    stream.close()


@pytest.mark.parametrize("way", USUAL_WAYS, ids=str)
async def test_quirk_10_a_syn_that_crosses_gos_go_away(meeting: Meeting, way: Way) -> None:
    async with Relay() as relay:
        session, go = await meeting.meet(way, "hold", relay=relay)
        stream, handle = await hold(session, go)
        to_us = relay.to_dialler if way.we_dial else relay.to_dialled
        to_us.hold()
        await go.call("goaway")
        crossing = session.open(eager=True)  # an empty SYN does no harm
        while (await go.call("stats"))["frames_in"]["syn"] < 2:
            pass
        to_us.release()
        with pytest.raises(StreamRefused):
            await crossing.read()
        await stream.write(b"all is well")
        assert (await go.call("read", handle=handle, n=11))["n"] == 11
        stream.close()


async def test_quirk_10_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    await go.call("goaway")
    raw.send(data(3, frame(0, 0, 3, b"12345"), SYN))  # the payload is parsed: a RST of 5 bytes
    assert await raw.reset_code(3) == ErrorCode.STREAM_REFUSED
    assert (await raw.goaway())[1] == ErrorCode.FRAME_SIZE_ERROR


# 11: a SYN of a live id


async def test_quirk_11_by_hand(meeting: Meeting, release: str) -> None:
    raw, go = await meeting.meet_by_hand("hold", release=release)
    raw.send(data(3, b"old", SYN), data(3, b"new", SYN))
    if release == "v2.0.2":
        assert (await raw.goaway())[1] == ErrorCode.PROTOCOL_ERROR
        return
    handles = [(await go.event("held", stream=3))["handle"] for _ in range(2)]
    read = [await go.call("read", handle=handle, n=3, show=True) for handle in handles]
    # Two streams of one id; Go's goroutines have taken their handles in any order.
    assert {bytes.fromhex(reply["data"]) for reply in read} == {b"old", b"new"}
    assert (await go.call("stats"))["table"] == 1


async def test_quirk_11_we_never_use_an_id_twice(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, release=release)
    ids = []
    for number in range(100):
        async with session.open() as stream:
            ids.append(stream.id)
            await stream.write(b"x")
            if number % 2:
                stream.reset()
    await exchange(session, b"all is well")
    assert ids == list(range(ids[0], ids[0] + 200, 2))
    assert not (await go.call("stats"))["ended"]


# 14: the top bit of an id


async def test_quirk_14_our_ids_end_below_it(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    last = 0x7FFFFFFF if way.role == "client" else 0x7FFFFFFE
    set_next_id(session._core, last)  # two thousand million streams later
    async with session.open() as stream:
        assert stream.id == last
        await stream.write(b"the last")
        stream.write_eof()
        assert await stream.read() == b"the last"
    with pytest.raises(StreamsExhausted):
        session.open()
    assert not (await go.call("stats"))["ended"]


async def test_quirk_14_gos_ids_end_below_it(meeting: Meeting, way: Way) -> None:
    last = 0x7FFFFFFE if way.role == "client" else 0x7FFFFFFF
    session, go = await meeting.meet(way, next_id=last)
    async with running(session.serve(echo)):
        assert (await go.call("check", n=1000))["stream"] == last
        with pytest.raises(GoError) as caught:
            await go.call("open")
        assert caught.value.code == ErrorCode.STREAMS_EXHAUSTED
    await exchange(session, b"and we still may")


async def test_quirk_14_by_hand(meeting: Meeting) -> None:
    raw, go = await meeting.meet_by_hand("hold")
    raw.send(data(0x80000003, b"x", SYN))
    handle = (await go.event("held", stream=0x80000003))["handle"]
    assert (await go.call("read", handle=handle, n=1))["n"] == 1
    assert (await go.event("session-end"))["code"] == ErrorCode.INTERNAL_ERROR


# 17: a clean end can be lost when the session ends


async def test_quirk_17_shutdown_waits_for_gos_fin(meeting: Meeting, way: Way) -> None:
    for number in range(10):
        session, go = await meeting.meet(way, "discard")
        async with session.open() as stream:
            await stream.write(data_of(100_000, number))
            stream.write_eof()
            await session.shutdown()
        done = await go.event("stream-done")
        assert "error" not in done, "Go did not see a clean end"
        assert done["read_sha256"] == sha256(data_of(100_000, number))


# 18 and 20: what is lost when Go ends


async def test_quirk_18_a_frame_cut_off_is_no_clean_end(meeting: Meeting, way: Way) -> None:
    async def end(go: GoPeer) -> None:
        go.kill()

    await check_cut_off(meeting, way, end)


async def test_quirk_20_writes_that_go_loses_at_its_close_are_no_clean_end(
    meeting: Meeting, way: Way
) -> None:
    async def end(go: GoPeer) -> None:
        await go.call("close-session")

    await check_cut_off(meeting, way, end)


async def check_cut_off(
    meeting: Meeting, way: Way, end: Callable[[GoPeer], Awaitable[None]]
) -> None:
    """Have Go end in the middle of what it writes, with our own data on the way to it."""
    config = Config(initial_window=4 * MIB)
    for _ in range(5):
        session, go = await meeting.meet(way, config=config, window=4 * MIB)
        handle = (await go.call("open"))["handle"]
        await go.call("write", handle=handle, n=64 * MIB, background=True)
        stream = await session.accept()
        # Our own data, unread in Go's kernel, turns its close into a reset.
        ours = session.open()
        await ours.write(data_of(8 * MIB))
        assert len(await stream.readexactly(MIB)) == MIB
        await end(go)
        with pytest.raises(SessionError):
            await digest(stream)
        async with asyncio.timeout(session.config.close_timeout):
            await session.wait_closed()
        with pytest.raises(MuxadoError):  # refused, if Go's GOAWAY came before it had seen it
            await ours.write(b"x")


# 21: keep reading at all times


async def test_quirk_21_we_read_while_we_cannot_write(meeting: Meeting, way: Way) -> None:
    """Nothing of ours gets through, and still all that Go says is taken in."""
    async with Relay(capacity=MIB) as relay:
        config = Config(ping_interval=None)
        session, go = await meeting.meet(way, f"source:{WINDOW}", config=config, relay=relay)
        streams = [session.open(eager=True) for _ in range(20)]
        await until(lambda: session.stats().memory_held == 20 * WINDOW, session)
        await go.call("behaviour", behaviour="discard")
        from_us = relay.to_dialled if way.we_dial else relay.to_dialler
        from_us.hold()
        blocked = [session.open() for _ in range(40)]
        for stream in blocked:
            await stream.write(data_of(WINDOW))
        await from_us.full()
        handles = [(await go.call("open"))["handle"] for _ in range(20)]
        for handle in handles:
            assert (await go.call("write", handle=handle, n=WINDOW))["n"] == WINDOW
        accepted = [await session.accept() for _ in handles]
        for stream in accepted:
            assert len(await stream.readexactly(WINDOW)) == WINDOW
        from_us.release()
        assert await session.ping() > 0
        for stream in (*streams, *blocked, *accepted):
            stream.reset()


# 24: a write that timed out is overwritten by the next


async def test_quirk_24_the_wrong_bytes_hurt_one_stream_only(meeting: Meeting, way: Way) -> None:
    """With its transport stuck, Go forgets a frame with the SYN and sends another one twice."""
    window = 16 * MIB
    async with Relay(capacity=MIB) as relay:
        config = Config(initial_window=window, max_window=window)
        session, go = await meeting.meet(way, config=config, window=window, relay=relay)
        to_us = relay.to_dialler if way.we_dial else relay.to_dialled
        bulk = (await go.call("open"))["handle"]
        odd = (await go.call("open"))["handle"]
        to_us.hold()
        wanted = await go.call("digest", n=window, seed=1)
        await go.call("write", handle=bulk, n=window, seed=1, background=True)
        await to_us.full()
        await go.call("write-deadline", handle=odd, ms=50)
        with pytest.raises(GoError) as caught:
            await go.call("write", handle=odd, data="aaaaaaaa")
        assert caught.value.reply.get("timeout") or caught.value.code == ErrorCode.WRITE_TIMEOUT
        await go.call("write-deadline", handle=odd, ms=0)
        await go.call("write", handle=odd, data="bbbbbbbb", background=True)
        to_us.release()
        async with await session.accept() as stream, running(digest(stream)) as reading:
            await go.event("done", cmd="write", n=4)
            await go.event("done", cmd="write", n=window)
            await go.call("close-write", handle=bulk)
            assert await reading == (window, wanted["sha256"])
        with pytest.raises(GoError) as caught:
            await go.call("read", handle=odd)
        assert caught.value.code == ErrorCode.STREAM_CLOSED
        await exchange(session, b"all is well")
        assert session.stats().streams_accepted == 1
