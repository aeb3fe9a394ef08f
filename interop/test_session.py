"""GOAWAY, the end of a session, and more streams than a peer wants."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from muxado import (
    Config,
    ErrorCode,
    PeerGone,
    Session,
    SessionClosed,
    SessionError,
    Stream,
    StreamRefused,
)

from .gopeer import GoError, GoPeer
from .helpers import MIB, data_of, digest, echo, exchange, running, send, sha256, until
from .meeting import Meeting, Way

pytestmark = pytest.mark.anyio


async def hold(session: Session, go: GoPeer) -> tuple[Stream, int]:
    """Open a stream that Go holds; return it and Go's handle."""
    stream = session.open(eager=True)
    return stream, (await go.event("held", stream=stream.id))["handle"]


# GOAWAY, and more traffic


async def test_our_go_away_leaves_the_rest_going(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, release=release)
    async with session.open() as ours, running(session.serve(echo)):
        await ours.write(b"before")
        assert await ours.readexactly(6) == b"before"
        opened = await go.call("open")
        handle = opened["handle"]
        await go.call("write", handle=handle, n=1000)
        await go.call("read", handle=handle, n=1000)

        session.go_away(7, b"please leave")
        await ours.write(b"after")
        assert await ours.readexactly(5) == b"after"
        assert (await go.event("goaway"))["last_id"] == opened["stream"]
        with pytest.raises(GoError) as caught:
            await go.call("open")
        assert caught.value.code == ErrorCode.REMOTE_GONE_AWAY

        for size in (0, 1, MIB):  # our own new streams are as welcome as before
            await exchange(session, data_of(size))
        written = await go.call("write", handle=handle, n=MIB, seed=3, background=True)
        assert written["started"]
        assert (await go.call("read", handle=handle, n=MIB))["sha256"] == (
            await go.call("digest", n=MIB, seed=3)
        )["sha256"]
        await go.call("close-write", handle=handle)
        assert (await go.call("read", handle=handle))["eof"]
    assert (await go.call("stats"))["ended"] is False


async def test_gos_go_away_leaves_the_rest_going(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, "hold", release=release)
    stream, handle = await hold(session, go)
    await go.call("goaway", code=0, debug="leaving soon")
    await session.ping()
    with pytest.raises(PeerGone):
        session.open()

    async with running(send(stream, data_of(MIB))):
        assert (await go.call("read", handle=handle))["sha256"] == sha256(data_of(MIB))
    async with running(session.serve(echo)):  # Go may still open
        assert (await go.call("check", n=MIB))["received"] == MIB
    assert not session.closed
    await go.call("close-session")
    await session.wait_closed()
    assert session.close_reason is not None
    assert session.close_reason.clean


async def test_go_away_both_ways_at_once(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, "hold", release=release)
    stream, handle = await hold(session, go)
    leaving = go.call("goaway")
    session.go_away()
    await leaving
    await go.event("goaway")
    async with running(send(stream, data_of(MIB))):
        assert (await go.call("read", handle=handle))["sha256"] == sha256(data_of(MIB))
    await go.call("write", handle=handle, data="ff")
    assert await stream.read(1) == b"\xff"
    stream.close()


async def test_shutdown_lets_gos_streams_end(meeting: Meeting, way: Way, release: str) -> None:
    session, go = await meeting.meet(way, "hold", release=release)
    stream, handle = await hold(session, go)
    async with running(session.shutdown()) as ending:
        await go.event("goaway")
        assert not ending.done()
        async with running(send(stream, data_of(MIB))) as sending:
            reply = await go.call("read", handle=handle)
            assert (reply["eof"], reply["sha256"]) == (True, sha256(data_of(MIB)))
            await sending
        written = await go.call("write", handle=handle, n=1000)
        async with running(digest(stream)) as reading:
            await go.call("close", handle=handle)
            assert await reading == (1000, written["sha256"])
        await ending
    end = (await go.call("wait"))["end"]
    assert (end["code"], end["remote_code"]) == (ErrorCode.PEER_EOF, 0)


async def test_shutdown_waits_for_what_is_unread(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "source:100000")
    async with session.open() as stream:
        stream.write_eof()
        assert await stream.wait_reset() is None  # all of it is here, and both ends have ended
        async with running(session.shutdown()) as ending:
            await go.event("goaway")
            assert not ending.done()
            assert len(await stream.readexactly(100_000)) == 100_000
            await ending


# The end, with data in flight


async def test_what_we_wrote_before_close_arrives(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "discard")
    data = [data_of(MIB, number) for number in range(8)]
    streams = [session.open() for _ in data]
    for stream, piece in zip(streams, data, strict=True):
        await stream.write(piece)
        stream.write_eof()
    session.close()  # nearly everything is still queued here
    done = [await go.event("stream-done") for _ in data]
    assert sorted(d["read_sha256"] for d in done) == sorted(map(sha256, data))
    await session.wait_closed()
    end = (await go.call("wait"))["end"]
    assert end["remote_code"] == 0
    # Go's reader has all of it by now. What its application grants after our close_notify meets
    # a closed socket, since TLS in asyncio has no half-close; then Go may see that first.
    gone = any(word in end["error"] for word in ("reset by peer", "broken pipe"))
    assert end["code"] == ErrorCode.PEER_EOF or (way.tls and gone)


async def test_what_go_wrote_before_close_arrives(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    handle = (await go.call("open"))["handle"]
    # So little that none of it is granted anew: a close with a grant unread resets the connection,
    # and the system forgets what Go has written and it has not sent.
    written = await go.call("write", handle=handle, n=100_000)
    await go.call("close-session")
    stream = await session.accept()
    assert sha256(await stream.readexactly(100_000)) == written["sha256"]
    with pytest.raises(SessionClosed):
        await stream.read()
    assert session.close_reason is not None
    assert (session.close_reason.code, session.close_reason.by_peer) == (0, True)
    assert not session.close_reason.clean  # Go's close() has cut its stream off
    async for _ in session:
        raise AssertionError("there was one stream only")


async def test_go_closes_in_the_midst_of_it(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "source:1000000000")
    received: list[int] = []

    async def read(stream: Stream) -> None:
        while True:
            received.append(len(await stream.read(65536)))
            assert received[-1], "no clean end: Go had more to say"

    async def write(stream: Stream) -> None:
        while True:
            await stream.write(b"x" * 65536)

    async def fails(work: Coroutine[Any, Any, None]) -> None:
        with pytest.raises(SessionError):
            await work

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            stream = session.open(eager=True)
            group.create_task(fails(read(stream)))
            group.create_task(fails(write(stream)))
        await until(lambda: sum(received) > 4 * MIB, session)
        await go.call("close-session")
        await session.wait_closed()
    assert session.close_reason is not None
    assert session.close_reason.by_peer


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_we_close_in_the_midst_of_it(meeting: Meeting, way: Way, how: str) -> None:
    config = Config(close_timeout=2.0)
    session, go = await meeting.meet(way, "hold", config=config)
    stream, handle = await hold(session, go)
    await stream.write(data_of(100_000))
    await go.call("write", handle=handle, n=10 * MIB, background=True)
    await until(lambda: session.stats().memory_held > 200_000, session)
    if how == "close":
        session.close()
    else:
        session.abort(42)
    await session.wait_closed()
    ended = await go.event("done", cmd="write")
    assert ended["ok"] is False
    end = (await go.call("wait"))["end"]
    with pytest.raises(GoError) as caught:
        await go.call("read", handle=handle)
    assert caught.value.code == ErrorCode.SESSION_CLOSED
    if how == "close":
        assert end["remote_code"] == 0
        assert caught.value.reply["sha256"] == sha256(data_of(100_000))
    with pytest.raises(SessionError):
        await stream.read()


async def test_gos_process_dies(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "source:1000000000")
    async with session.open(eager=True) as stream, running(digest(stream)) as reading:
        await until(lambda: session.stats().bytes_received > MIB, session)
        go.kill()
        with pytest.raises(SessionError):
            await reading
        await session.wait_closed()
    assert session.close_reason is not None
    assert session.close_reason.by_peer
    assert not session.close_reason.clean


async def test_gos_verdict_reaches_our_application(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "hold")
    stream, _ = await hold(session, go)
    await go.call("goaway", code=77, debug="for a reason")
    await go.call("close-session")
    with pytest.raises(SessionError):
        await stream.read()
    await session.wait_closed()
    reason = session.close_reason
    assert reason is not None
    # The last GOAWAY counts: Go's Close says that all is well.
    assert (reason.code, reason.clean, reason.by_peer) == (0, True, True)


# More than a peer wants


async def test_go_refuses_what_its_backlog_cannot_hold(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "none", backlog=5)
    streams = [session.open(eager=True) for _ in range(20)]
    await until(lambda: session.stats().resets_received == 15, session)
    for stream in streams[5:]:
        assert await stream.wait_reset() == ErrorCode.ACCEPT_QUEUE_FULL
        with pytest.raises(StreamRefused):
            await stream.write(b"x")
    await go.call("behaviour", behaviour="echo")
    for stream in streams[:5]:
        await stream.write(b"patience")
        stream.write_eof()
        assert await stream.read() == b"patience"
    await exchange(session, b"and there is room again")


async def test_we_refuse_what_our_backlog_cannot_hold(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=Config(accept_backlog=5))
    handles = []
    for _ in range(20):
        handles.append((await go.call("open"))["handle"])
        await go.call("write", handle=handles[-1], data="01")
    await until(lambda: session.stats().refusals == 15, session)
    for handle in handles[5:]:
        with pytest.raises(GoError) as caught:
            await go.call("read", handle=handle)
        assert caught.value.code == ErrorCode.ACCEPT_QUEUE_FULL
    async with running(session.serve(echo)):
        for handle in handles[:5]:
            await go.call("close-write", handle=handle)
            assert (await go.call("read", handle=handle))["n"] == 1
        assert (await go.call("check", n=1000))["retries"] == 0


async def test_we_refuse_more_streams_than_may_be_open(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=Config(max_incoming_streams=10))
    async with running(session.serve(echo)):
        handles = []
        for _ in range(11):
            handles.append((await go.call("open"))["handle"])
            await go.call("write", handle=handles[-1], data="01")
        with pytest.raises(GoError) as caught:
            await go.call("read", handle=handles[10])
        assert caught.value.code == ErrorCode.STREAM_REFUSED
        for handle in handles[:10]:
            await go.call("close-write", handle=handle)
            assert (await go.call("read", handle=handle))["eof"]
        assert (await go.call("check", n=1000))["received"] == 1000
