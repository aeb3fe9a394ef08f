"""yamux and smux against their Go originals: both roles, either side opens, plain and over TLS."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import muxado
from muxado import Config, Session

from .gopeer import GoError, GoPeer
from .helpers import (
    MIB,
    cuts,
    data_of,
    digest,
    echo,
    exchange,
    random_size,
    running,
    sha256,
)
from .meeting import HOST, Tls, end

pytestmark = pytest.mark.anyio

WIRES = {"hashicorp": "yamux", "libp2p": "yamux", "smux-v2": "smux-v2", "smux-v1": "smux-v1"}


class Way(NamedTuple):
    """Which library Go uses, which role is ours, and whether over TLS."""

    peer: str
    role: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.peer}-we-{self.role}{'-tls' * self.tls}"


WAYS = [
    Way(peer, role, tls) for peer in WIRES for role in ("client", "server") for tls in (False, True)
]
Meet = Callable[..., Awaitable[tuple[Session, GoPeer]]]


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
async def meet(
    way: Way, wires_program: Path, tls: Tls, tmp_path: Path, no_tasks_left: None
) -> AsyncIterator[Meet]:
    """Starts a Go peer and connects a session to it; the client dials."""
    async with AsyncExitStack() as stack:

        async def connect(
            behaviour: str = "echo", settings: dict[str, Any] | None = None, **flags: Any
        ) -> tuple[Session, GoPeer]:
            wire = WIRES[way.peer]
            flags |= {"library": way.peer, "behaviour": behaviour}
            if way.tls:
                flags |= tls.go_flags | {"alpn": ""}
            stderr = tmp_path / "go.stderr"
            if way.role == "client":
                flags |= {"role": "server", "listen": f"{HOST}:0"}
                go = await GoPeer.start(wires_program, stderr, **flags)
                stack.push_async_callback(go.finish)
                host, port = (await go.event("listening"))["addr"].split(":")
                context = tls.client if way.tls else None
                config = Config(wire=wire, **settings or {})
                session = await muxado.connect(host, int(port), ssl=context, config=config)
            else:
                context = tls.server if way.tls else None
                config = Config(wire="auto", **settings or {})
                async with muxado.listen(HOST, 0, ssl=context, config=config) as listener:
                    flags |= {"role": "client", "dial": "{}:{}".format(*listener.addresses[0])}
                    go = await GoPeer.start(wires_program, stderr, **flags)
                    stack.push_async_callback(go.finish)
                    session = await listener.accept()
            stack.push_async_callback(end, session)
            await go.event("session")
            if way.role == "server":  # which wire it is the client's first bytes say
                async with running(session.serve(echo)):
                    await go.call("check", n=1)
                assert session.config.wire == wire
            return session, go

        yield connect


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_145, 4 * MIB])
async def test_go_echoes(meet: Meet, size: int) -> None:
    session, _ = await meet()
    await exchange(session, data_of(size))
    assert session.stats().streams == 0


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_145, 4 * MIB])
async def test_we_echo(meet: Meet, size: int) -> None:
    session, go = await meet()
    async with running(session.serve(echo)):
        for chunk in (-1, 0):
            reply = await go.call("check", n=size, chunk=chunk)
            assert reply["sent"] == reply["received"] == size
            assert reply["sent_sha256"] == reply["received_sha256"]


@pytest.mark.patience(60)
async def test_many_streams_at_once_both_ways(meet: Meet) -> None:
    session, go = await meet()
    sizes = [0, 1, 1000, 70_000] * 75
    async with running(session.serve(echo)):
        theirs = go.call("many", count=300, max=200_000, seed=3)
        await asyncio.gather(*[exchange(session, data_of(size)) for size in sizes])
        reply = await theirs
    assert reply["good"] == 300
    assert (await go.call("stats"))["failed"] == 0


PLAIN = pytest.mark.parametrize("way", [way for way in WAYS if not way.tls], ids=str)


@PLAIN
@pytest.mark.big
@pytest.mark.patience(90)
async def test_64_mib_each_way_at_once(meet: Meet) -> None:
    session, go = await meet()
    size = 64 * MIB
    async with running(session.serve(echo)):
        theirs = go.call("check", n=size, chunk=0)
        await exchange(session, data_of(size))
        reply = await theirs
    assert reply["received"] == size
    assert reply["sent_sha256"] == reply["received_sha256"]


@PLAIN
@pytest.mark.big
@pytest.mark.patience(90)
async def test_a_thousand_streams_of_each_side_in_random_pieces(meet: Meet) -> None:
    session, go = await meet()
    rng = random.Random(5)

    async def one(number: int) -> None:
        data = data_of(random_size(rng, 60_000), number)
        async with (
            session.open(priority=rng.randint(-8, 7)) as stream,
            running(digest(stream)) as back,
        ):
            for piece in cuts(data, rng):
                await stream.write(piece)
                await asyncio.sleep(0.001 * rng.randint(0, 3))
            stream.write_eof()
            assert await back == (len(data), sha256(data))

    async with running(session.serve(echo)):
        theirs = go.call("many", count=1000, max=60_000, seed=7, jitter_ms=3)
        await asyncio.gather(*[one(number) for number in range(1000)])
        assert (await theirs)["good"] == 1000
    assert session.stats().streams == 0


async def test_a_stream_beyond_our_limit_is_refused_or_waits(meet: Meet, way: Way) -> None:
    session, go = await meet(settings={"max_incoming_streams": 1})
    first = (await go.call("open"))["handle"]
    await go.call("write", handle=first, data=b"1".hex())
    async with await session.accept() as stream:
        assert await stream.readexactly(1) == b"1"
        second = (await go.call("open"))["handle"]
        if not way.peer.startswith("smux"):
            with pytest.raises(GoError):
                await go.call("read", handle=second)
        await go.call("close", handle=first)
    if way.peer.startswith("smux"):  # can't refuse: it comes when there is room
        await go.call("write", handle=second, data=b"2".hex())
        async with await session.accept() as stream:
            assert await stream.readexactly(1) == b"2"
            await go.call("close", handle=second)
    async with running(session.serve(echo)):
        assert (await go.call("check", n=1000))["received"] == 1000


async def test_a_close_of_gos_with_data_in_flight_is_an_error_here(meet: Meet) -> None:
    session, go = await meet()
    handle = (await go.call("open"))["handle"]
    await go.call("write", handle=handle, n=50_000_000, seed=1, background=True)
    async with await session.accept() as stream:
        await stream.readexactly(100_000)
        await go.call("close-session")
        with pytest.raises(muxado.MuxadoError):
            await stream.read()
    assert not (await session.wait_closed()).clean


async def test_the_answer_may_come_after_the_end_of_the_question(meet: Meet) -> None:
    session, go = await meet("hold")
    async with session.open() as stream:
        await stream.write(b"question")
        stream.write_eof()
        handle = (await go.event("held"))["handle"]
        asked = await go.call("read", handle=handle, show=True)
        assert (bytes.fromhex(asked["data"]), asked["eof"]) == (b"question", True)
        await go.call("write", handle=handle, data=b"answer".hex())
        await go.call("close-write", handle=handle)
        assert await stream.read() == b"answer"


async def test_a_stream_that_waits_for_its_reader_is_whole(meet: Meet) -> None:
    session, go = await meet("slow:4000000")
    data = data_of(MIB)
    async with session.open() as stream:
        await stream.write(data)
        stream.write_eof()
        await stream.wait_closed()
    assert (await go.event("stream-done", timeout=20))["read"] == MIB


async def test_a_close_of_ours_loses_nothing(meet: Meet, way: Way) -> None:
    if way.peer == "libp2p":
        pytest.skip("go-yamux drops the streams that it has not accepted when the connection ends")
    session, go = await meet("discard")
    async with session.open() as stream:
        await stream.write(b"x")
        # Of a stream to accept and the connection's end, Go's smux takes either one first.
        await go.event("discarding")
        await stream.write(data_of(99_999))
    session.close()
    reason = await session.wait_closed()
    assert reason.clean
    assert (await go.event("stream-done"))["read"] == 100_000


async def test_a_close_of_gos_is_clean_where_nothing_is_open(meet: Meet) -> None:
    session, go = await meet()
    await exchange(session, b"hello")
    await go.call("close-session")
    reason = await session.wait_closed()
    assert (reason.clean, reason.by_peer) == (True, True)


async def test_a_close_of_gos_that_cuts_a_stream_is_not_clean(meet: Meet) -> None:
    session, go = await meet("hold")
    stream = session.open()
    await stream.write(b"x")
    await go.event("held")
    async with running(stream.read()) as reading:
        await asyncio.sleep(0)
        await go.call("close-session")
        reason = await session.wait_closed()
        with pytest.raises(muxado.SessionError):
            await reading
    assert not reason.clean


async def test_pings_both_ways(meet: Meet, way: Way) -> None:
    session, go = await meet()
    if way.peer.startswith("smux"):
        with pytest.raises(muxado.UsageError, match="no pings"):
            await session.ping()
        return
    assert await session.ping() > 0
    assert (await go.call("ping"))["us"] >= 0


async def test_an_idle_session_outlives_gos_keepalive(meet: Meet, way: Way) -> None:
    """smux ends one from which nothing comes, yamux one that does not answer."""
    keepalive = {
        "keepalive": "200ms",
        "keepalive_timeout": "11s" if way.peer.startswith("smux") else "5s",
    }
    session, _ = await meet(**keepalive)
    await asyncio.sleep(1)
    assert not session.closed
    await exchange(session, b"still there")


async def test_resets_both_ways(meet: Meet, way: Way) -> None:
    session, go = await meet("hold")
    stream = session.open()
    await stream.write(b"x")
    handle = (await go.event("held"))["handle"]
    if way.peer.startswith("smux"):
        with pytest.raises(muxado.UsageError, match="no reset"):
            stream.reset()
        stream.close()
        return
    stream.reset()
    await session.ping()
    with pytest.raises(GoError):
        await go.call("read", handle=handle, n=100)
    if way.peer == "libp2p":
        other = session.open()
        await other.write(b"y")
        await go.call("reset", handle=(await go.event("held"))["handle"])
        with pytest.raises(muxado.StreamReset):
            await other.read()
        other.close()


async def test_a_drain_of_gos_lets_open_streams_end(meet: Meet, way: Way) -> None:
    session, go = await meet()
    if way.peer.startswith("smux"):
        with pytest.raises(muxado.UsageError, match="no GOAWAY"):
            session.go_away()
        return
    async with session.open() as stream:
        await stream.write(b"before")
        assert await stream.readexactly(6) == b"before"
        await go.call("goaway")
        await stream.write(b"after")
        stream.write_eof()
        assert await stream.read() == b"after"
    while session.peer_goaway is None:
        await session.ping()
    with pytest.raises(muxado.PeerGone):
        session.open()
