"""httpx's clients over streams: on asyncio, uvloop, trio, and from threads.

The service is the standard library's, in threads, on the other end of the connection.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import httpx
import pytest

import muxado
import muxado.sync
import muxado.trio
from muxado.adapters.httpx import AsyncTransport, Transport
from tests.bounded import LOOPS

from .conftest import PATIENCE, SyncEnds, Tls
from .http_service import serving

MIB = 1024 * 1024


@pytest.fixture(params=[*LOOPS, pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Mixed(NamedTuple):
    """A session of threads that serves, and one of the test's event loop that calls."""

    serving: muxado.sync.Session
    calling: Any


@pytest.fixture
async def mixed(way: str, anyio_backend_name: str) -> AsyncIterator[Mixed]:
    module: Any = muxado.trio if anyio_backend_name == "trio" else muxado
    async with AsyncExitStack() as stack:
        if way == "dialled":
            listener = await stack.enter_async_context(module.listen("127.0.0.1", 0))
            far = muxado.sync.connect(*listener.addresses[0])
            near = await listener.accept()
            if module is muxado:
                await stack.enter_async_context(near)
        else:
            with muxado.sync.listen("127.0.0.1", 0) as listening:
                near = await stack.enter_async_context(module.connect(*listening.addresses[0]))
                far = await anyio.to_thread.run_sync(listening.accept, PATIENCE)
        yield Mixed(far, near)
    await anyio.to_thread.run_sync(far.wait_closed, PATIENCE)


# async


@pytest.mark.anyio
@pytest.mark.parametrize("side", ["calling", "serving"])
async def test_idle_connections_end_when_the_session_drains(mixed: Mixed, side: str) -> None:
    transport = AsyncTransport(mixed.calling)
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            assert (await http.get("http://service/")).status_code == 200
            if side == "calling":
                await mixed.calling.shutdown(timeout=None)
            else:
                await anyio.to_thread.run_sync(mixed.serving.shutdown, None)
            assert mixed.calling.close_reason.clean


@pytest.mark.anyio
async def test_requests(mixed: Mixed) -> None:
    transport = AsyncTransport(mixed.calling)
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            for path in ("/one", "/two"):
                response = await http.get(f"http://no.such.host{path}")
                assert response.status_code == 200
                assert response.text == path
    assert mixed.calling.stats().streams_opened == 1  # kept alive


@pytest.mark.anyio
async def test_many_at_once(mixed: Mixed) -> None:
    transport = AsyncTransport(mixed.calling)
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:

            async def post(number: int) -> None:
                body = b"%d" % number * 10_000
                assert (await http.post("http://service/", content=body)).content == body

            async with anyio.create_task_group() as group:
                for number in range(30):
                    group.start_soon(post, number)


@pytest.mark.anyio
async def test_a_body_larger_than_the_window(mixed: Mixed) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    transport = AsyncTransport(mixed.calling)
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            assert (await http.post("http://service/", content=body)).content == body


@pytest.mark.anyio
async def test_a_connection_that_the_server_has_closed_is_not_used_again(
    mixed: Mixed,
) -> None:
    transport = AsyncTransport(mixed.calling)
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            for _ in range(3):
                assert (await http.get("http://service/once")).text == "/once"
                with anyio.fail_after(PATIENCE):
                    while mixed.serving.stats().streams:
                        await mixed.calling.ping()
                await mixed.calling.ping()
    assert mixed.calling.stats().streams_opened == 3


@pytest.mark.anyio
async def test_https_inside_a_stream(mixed: Mixed, tls: Tls) -> None:
    transport = AsyncTransport(mixed.calling, verify=tls.client)
    with serving(mixed.serving, tls.server):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            assert (await http.get("https://service.internal/secret")).text == "/secret"
            with pytest.raises(httpx.ConnectError, match="elsewhere"):
                await http.get("https://elsewhere.internal/")


@pytest.mark.anyio
async def test_failures(mixed: Mixed) -> None:
    with serving(mixed.serving):
        async with httpx.AsyncClient(transport=AsyncTransport(mixed.calling)) as http:
            with pytest.raises(httpx.ReadError):
                await http.get("http://service/reset")
            with pytest.raises(httpx.ReadTimeout):
                await http.get("http://service/silent", timeout=0.05)
            mixed.calling.close()
            with pytest.raises(httpx.ConnectError):
                await http.get("http://service/")


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["http://service/unread", "https://service.internal/unread"])
async def test_a_timeout_is_kept_though_the_peer_reads_nothing(
    mixed: Mixed, tls: Tls, url: str
) -> None:
    """httpcore closes the connection where nothing can cancel it."""
    transport = AsyncTransport(mixed.calling, verify=tls.client)
    with serving(mixed.serving, tls.server if url.startswith("https") else None):
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:
            timeout = httpx.Timeout(PATIENCE, read=0.05)
            with anyio.move_on_after(PATIENCE / 2) as scope, pytest.raises(httpx.ReadTimeout):
                await http.post(url, content=bytes(4 * MIB), timeout=timeout)
            assert not scope.cancel_called
        assert mixed.calling.stats().streams == 0


# sync


def test_sync_requests(sync_ends: SyncEnds) -> None:
    with (
        serving(sync_ends.serving),
        httpx.Client(transport=Transport(sync_ends.calling), timeout=PATIENCE) as http,
    ):
        for path in ("/one", "/two"):
            assert http.get(f"http://no.such.host{path}").text == path
        assert sync_ends.calling.stats().streams_opened == 1

        def post(number: int) -> None:
            body = b"%d" % number * 10_000
            assert http.post("http://service/", content=body).content == body

        with ThreadPoolExecutor(20) as executor:
            list(executor.map(post, range(30)))
        body = bytes(4 * MIB)
        assert http.post("http://service/", content=body).content == body


def test_sync_https_inside_a_stream(sync_ends: SyncEnds, tls: Tls) -> None:
    transport = Transport(sync_ends.calling, verify=tls.client)
    with (
        serving(sync_ends.serving, tls.server),
        httpx.Client(transport=transport, timeout=PATIENCE) as http,
    ):
        for _ in range(2):
            assert http.get("https://service.internal/secret").text == "/secret"
        assert sync_ends.calling.stats().streams_opened == 1
        with pytest.raises(httpx.ConnectError, match="elsewhere"):
            http.get("https://elsewhere.internal/")


def test_sync_failures(sync_ends: SyncEnds) -> None:
    with (
        serving(sync_ends.serving),
        httpx.Client(transport=Transport(sync_ends.calling), timeout=PATIENCE) as http,
    ):
        with pytest.raises(httpx.ReadError):
            http.get("http://service/reset")
        with pytest.raises(httpx.ReadTimeout):
            http.get("http://service/silent", timeout=0.05)
        sync_ends.calling.close()
        with pytest.raises(httpx.ConnectError):
            http.get("http://service/")


def test_sync_a_peer_that_fell_silent_is_no_timeout_of_the_request(
    tcp_socket: socket.socket,
) -> None:
    config = muxado.Config(ping_interval=1, ping_timeout=0.05)
    with (
        muxado.sync.connect(*tcp_socket.getsockname(), config=config) as session,
        httpx.Client(transport=Transport(session, verify=False), timeout=PATIENCE) as http,
    ):
        with pytest.raises(httpx.ReadError):
            http.get("http://service/")
        with pytest.raises(httpx.ConnectError):
            http.get("http://service/")
