"""HTTP over streams: Go's server behind a session that we have dialled, and Go's client."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from muxado import Config, Session

from . import http1
from .helpers import KIB, MIB, WINDOW, data_of, random_size, retried, running, sha256
from .meeting import Meeting, Way

pytestmark = [pytest.mark.anyio, pytest.mark.patience(40)]

# Every size at first, then the ones beside each power of two, and those whose request (or
# answer) just fills a window.
SIZES = sorted(
    {
        *range(600),
        *(2**power + more for power in range(20) for more in (-1, 0, 1)),
        *range(WINDOW - 250, WINDOW + 10, 5),
        MIB - 1,
        MIB,
    }
)
AT_ONCE = 500


async def post(session: Session, size: int, *, path: str = "/echo", chunked: bool = False) -> None:
    """Have a body come back over a stream of its own."""
    body = data_of(size)
    async with session.open() as stream:
        response = await http1.ask(stream, path, body, chunked=chunked)
        assert response.status == 200
        assert response.body == (body if path == "/echo" else sha256(body).encode())
        assert await stream.read() == b""  # Go's server closes after the answer


async def post_all(session: Session, sizes: list[int], at_once: int, chunked: bool) -> int:
    """Post bodies of these sizes; return how often a stream was refused."""
    limit = asyncio.Semaphore(at_once)

    async def one(size: int) -> int:
        async with limit:
            return await retried(partial(post, session, size, chunked=chunked))

    return sum(await asyncio.gather(*[one(size) for size in sizes]))


# Go's http.Serve accepts from the session


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_gos_server_takes_every_size(meeting: Meeting, way: Way, chunked: bool) -> None:
    session, _ = await meeting.meet(way, "http")
    assert await post_all(session, SIZES, 20, chunked) == 0
    assert session.stats().streams == 0


async def test_gos_server_takes_500_at_once(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http", backlog=AT_ONCE)
    rng = random.Random(1)
    sizes = [random_size(rng, 256 * KIB) for _ in range(2 * AT_ONCE)]
    assert await post_all(session, sizes, AT_ONCE, False) == 0


async def test_gos_server_takes_500_at_once_with_its_default_backlog(
    meeting: Meeting, way: Way
) -> None:
    session, go = await meeting.meet(way, "none")
    posting = post_all(session, [1000] * AT_ONCE, AT_ONCE, False)
    async with running(posting) as posted:
        while session.stats().resets_received == 0:
            await session.ping()
        await go.call("http-serve")
        assert await posted > 0


async def test_gos_server_keeps_a_stream_alive(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http")
    async with session.open() as stream:
        for number, size in enumerate([0, 1, 1000, WINDOW, MIB, 0, 5]):
            body = data_of(size)
            response = await http1.ask(
                stream, "/echo", body, keep_alive=True, chunked=number % 2 == 1
            )
            assert (response.status, response.body) == (200, body)
        stream.write_eof()
        assert await stream.read() == b""


async def test_gos_server_sends_what_it_makes(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http")
    for size in (0, 1, WINDOW, 5 * MIB):
        async with session.open() as stream:
            response = await http1.ask(stream, f"/size/{size}?seed=7", b"")
            assert len(response.body) == size
            assert response.headers["x-sha256"] == sha256(response.body)
    await post(session, MIB, path="/hash")
    async with session.open() as stream:
        response = await http1.ask(stream, "/slow?parts=5&ms=20", b"")
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.body == b"".join(b"part %d\n" % part for part in range(5))


async def test_gos_server_outlives_clients_that_leave(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http")
    for _ in range(20):
        leaving = session.open()
        await leaving.write(b"POST /echo HTTP/1.1\r\nHost: peer\r\nContent-Length: 100\r\n\r\nhalf")
        await session.ping()
        leaving.reset()
    await post(session, 1000)


# Go's http.Client dials streams towards us


@pytest.mark.parametrize("keepalive", [False, True], ids=["close", "keepalive"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_gos_client_gets_every_size(
    meeting: Meeting, way: Way, chunked: bool, keepalive: bool
) -> None:
    session, go = await meeting.meet(way)
    async with running(session.serve(partial(http1.answer, chunked=chunked))):
        reply = await go.call(
            "http-client",
            sizes=SIZES,
            chunked=chunked,
            keepalive=keepalive,
            concurrency=20,
        )
    assert (reply["good"], reply["statuses"]) == (len(SIZES), {"200": len(SIZES)})
    assert reply["bytes"] == sum(SIZES)
    if keepalive:
        assert session.stats().streams_accepted < len(SIZES) // 10
    else:
        assert session.stats().streams_accepted == len(SIZES)


async def test_gos_client_makes_500_requests_at_once(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way)
    async with running(session.serve(http1.answer)):
        reply = await go.call("http-client", count=AT_ONCE, max=256 * KIB)
    assert (reply["good"], reply["retries"]) == (AT_ONCE, 0)


async def test_gos_client_makes_500_requests_of_a_short_backlog(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=Config(accept_backlog=128))
    asking = go.call("http-client", count=AT_ONCE, max=1000)
    while session.stats().refusals == 0:
        await session.ping()
    async with running(session.serve(http1.answer)):
        reply = await asking
    assert reply["good"] == AT_ONCE
    assert reply["retries"] >= 1


async def test_http_both_ways_at_once(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "http", backlog=AT_ONCE)
    async with running(session.serve(http1.answer)):
        asking = go.call("http-client", count=200, max=MIB)
        rng = random.Random(2)
        assert await post_all(session, [random_size(rng, MIB) for _ in range(200)], 200, False) == 0
        assert (await asking)["good"] == 200
