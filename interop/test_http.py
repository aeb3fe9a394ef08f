"""HTTP over streams: Python's clients and Go's server, Go's client and Python's servers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import pytest

import muxado.sync
from muxado import Config, ErrorCode, Session, StreamRefused

from . import http_clients, http_servers
from .gopeer import GoPeer
from .helpers import KIB, MIB, WINDOW, data_of, random_size, retried, running, sha256
from .http_clients import CLIENTS, Ask, cause
from .http_servers import SERVERS
from .meeting import Meeting, Way

pytestmark = [pytest.mark.anyio, pytest.mark.patience(40)]

# One size of each kind.
KINDS = [0, 1, KIB, 64 * KIB, WINDOW, MIB]
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
LARGE = 8 * MIB - 1


async def all_open(session: Session | muxado.sync.Session) -> None:
    """Wait until so many streams are open at once."""
    while session.stats().streams < AT_ONCE:
        if isinstance(session, Session):
            await session.ping()
        else:
            await asyncio.to_thread(session.ping)


async def post(ask: Ask, size: int, *, chunked: bool = False) -> None:
    """Have a body come back."""
    body = data_of(size)
    answer = await ask("/echo", body, chunked=chunked)
    assert answer.status == 200
    assert (len(answer.body), sha256(answer.body)) == (size, sha256(body))


async def get(ask: Ask, size: int) -> None:
    """Have Go make a body."""
    answer = await ask(f"/size/{size}?seed=7")
    assert answer.status == 200
    assert len(answer.body) == size
    assert sha256(answer.body) == answer.headers["x-sha256"]


async def post_all(ask: Ask, sizes: list[int], at_once: int, *, chunked: bool = False) -> None:
    """Post bodies of these sizes."""
    limit = asyncio.Semaphore(at_once)

    async def one(size: int) -> None:
        async with limit:
            await post(ask, size, chunked=chunked)

    await asyncio.gather(*[one(size) for size in sizes])


# Go's http.Serve accepts from the session


class Calling(NamedTuple):
    """A client of Python's, the session that carries it, and the server."""

    ask: Ask
    session: Session | muxado.sync.Session
    go: GoPeer


@pytest.fixture(params=CLIENTS)
async def unheard(
    request: pytest.FixtureRequest, meeting: Meeting, way: Way
) -> AsyncIterator[Calling]:
    """While the server doesn't serve yet."""
    meet = meeting.meet_in_threads if request.param in http_clients.THREADED else meeting.meet
    session, go = await meet(way, "none", backlog=AT_ONCE)
    async with CLIENTS[request.param](session) as ask:
        yield Calling(ask, session, go)


@pytest.fixture
async def calling(unheard: Calling) -> Calling:
    await unheard.go.call("http-serve")
    return unheard


async def test_gos_server_takes_every_kind_of_size(calling: Calling) -> None:
    for size in KINDS:
        await get(calling.ask, size)
        await post(calling.ask, size)
        await post(calling.ask, size, chunked=True)
    assert calling.session.stats().streams_opened == 1  # kept alive


async def test_gos_server_takes_large_bodies(calling: Calling) -> None:
    await get(calling.ask, LARGE)
    await post(calling.ask, LARGE)


async def test_gos_server_takes_500_at_once(unheard: Calling) -> None:
    ask, session, go = unheard
    rng = random.Random(1)
    sizes = [random_size(rng, 100 * KIB) for _ in range(AT_ONCE)]
    half = AT_ONCE // 2
    async with asyncio.TaskGroup() as group:
        for size in sizes[:half]:
            group.create_task(post(ask, size))
        for size in sizes[half:]:
            group.create_task(get(ask, size))
        await all_open(session)
        await go.call("http-serve")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_gos_server_takes_every_size(meeting: Meeting, way: Way, chunked: bool) -> None:
    session, _ = await meeting.meet(way, "http")
    async with http_clients.by_aiohttp(session) as ask:
        await post_all(ask, SIZES, 20, chunked=chunked)
    await session.ping()
    assert session.stats().streams == 0


async def test_what_gos_server_refuses_can_be_tried_again(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "none")  # its backlog is 128

    async with http_clients.by_aiohttp(session) as ask:

        async def attempt() -> None:
            try:
                await post(ask, 1000)
            except Exception as exc:
                if refused := cause(exc, StreamRefused):
                    raise refused from exc
                if cause(exc, aiohttp.ClientConnectionResetError) is None:
                    raise
                # The refusal came between two writes of aiohttp's, of the head or the body: it
                # saw the closing transport before connection_lost() told it why.
                raise StreamRefused(str(exc), code=ErrorCode.STREAM_REFUSED, by_peer=True) from exc

        posting = asyncio.gather(*[retried(attempt) for _ in range(AT_ONCE)])
        while session.stats().resets_received == 0:
            await session.ping()
        await go.call("http-serve")
        assert sum(await posting) > 0


async def test_gos_server_sends_its_answer_piece_by_piece(calling: Calling) -> None:
    answer = await calling.ask("/slow?parts=5&ms=5")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"".join(b"part %d\n" % part for part in range(5))


async def test_gos_server_answers_a_client_that_has_half_closed(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http")
    body = data_of(2 * WINDOW)
    async with session.open() as stream:
        head = f"POST /echo HTTP/1.1\r\nHost: peer\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.writelines([head.encode(), body])
        stream.write_eof()
        answer = await stream.read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sha256(answer[-len(body) :]) == sha256(body)


async def test_gos_server_outlives_clients_that_leave(meeting: Meeting, way: Way) -> None:
    session, _ = await meeting.meet(way, "http")
    for _ in range(20):
        leaving = session.open()
        await leaving.write(b"POST /echo HTTP/1.1\r\nHost: peer\r\nContent-Length: 100\r\n\r\nhalf")
        await session.ping()
        leaving.reset()
    async with http_clients.by_httpx(session) as ask:
        await post(ask, 1000)


# Go's http.Client dials streams towards us


class Serving(NamedTuple):
    """A server of Python's for Go, which serves in a block of `serve()`, and its session."""

    go: GoPeer
    session: Session | muxado.sync.Session
    serve: Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture(params=SERVERS)
async def about_to_serve(request: pytest.FixtureRequest, meeting: Meeting, way: Way) -> Serving:
    meet = meeting.meet_in_threads if request.param in http_servers.THREADED else meeting.meet
    session, go = await meet(way)
    return Serving(go, session, partial(SERVERS[request.param], session))


@pytest.fixture
async def serving(about_to_serve: Serving) -> AsyncIterator[Serving]:
    async with about_to_serve.serve():
        yield about_to_serve


async def asks(go: GoPeer, expected: int, **fields: Any) -> int:
    """Have Go make requests, which must all succeed; return how often a stream was refused."""
    reply = await go.call("http-client", **fields)
    assert (reply["good"], reply["statuses"]) == (expected, {"200": expected})
    retries: int = reply["retries"]
    return retries


@pytest.mark.parametrize("keepalive", [False, True], ids=["close", "keepalive"])
async def test_gos_client_gets_every_kind_of_size(serving: Serving, keepalive: bool) -> None:
    go, session, _ = serving
    ask = partial(asks, go, len(KINDS), sizes=KINDS, keepalive=keepalive, concurrency=1)
    assert await ask(get=True) == 0
    assert await ask() == 0
    assert await ask(chunked=True) == 0
    # Each command has a client of its own.
    assert session.stats().streams_accepted == (3 if keepalive else 3 * len(KINDS))


async def test_gos_client_gets_large_bodies(serving: Serving) -> None:
    assert await asks(serving.go, 1, sizes=[LARGE], get=True) == 0
    assert await asks(serving.go, 1, sizes=[LARGE]) == 0


async def test_gos_client_makes_500_requests_at_once(about_to_serve: Serving) -> None:
    go, session, serve = about_to_serve
    async with running(asks(go, AT_ONCE, count=AT_ONCE, max=100 * KIB)) as asking:
        await all_open(session)
        async with serve():
            assert await asking == 0


@pytest.mark.parametrize(
    ("chunked", "keepalive"),
    [(False, False), (True, True)],
    ids=["length-close", "chunked-keepalive"],
)
async def test_gos_client_gets_every_size(
    meeting: Meeting, way: Way, chunked: bool, keepalive: bool
) -> None:
    session, go = await meeting.meet(way)
    count = len(SIZES)
    async with http_servers.by_aiohttp(session):
        await asks(go, count, sizes=SIZES, chunked=chunked, keepalive=keepalive, concurrency=20)
    if keepalive:
        assert session.stats().streams_accepted < count // 10
    else:
        assert session.stats().streams_accepted == count


async def test_gos_client_makes_500_requests_of_a_short_backlog(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, config=Config(accept_backlog=128))
    async with running(asks(go, AT_ONCE, count=AT_ONCE, max=1000)) as asking:
        while session.stats().refusals == 0:
            await session.ping()
        async with http_servers.by_aiohttp(session):
            assert await asking >= 1


async def test_http_both_ways_at_once(meeting: Meeting, way: Way) -> None:
    session, go = await meeting.meet(way, "http", backlog=AT_ONCE)
    rng = random.Random(2)
    async with http_servers.by_aiohttp(session), http_clients.by_aiohttp(session) as ask:
        sizes = [random_size(rng, MIB) for _ in range(200)]
        await asyncio.gather(asks(go, 200, count=200, max=MIB), post_all(ask, sizes, 200))
