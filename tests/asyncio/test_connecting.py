"""Dialling on both event loops: several addresses, time limits, given sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import muxado
from muxado import Config

from ..certificates import Tls
from ..helpers import cancel, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

LOCAL = "127.0.0.1"
Name = Callable[..., None]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Name:
    """Let the name "several" have these addresses."""

    def define(*places: tuple[str, int]) -> None:
        def answer(host: str, *args: Any, **kwds: Any) -> list[Any]:
            assert host == "several"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return define


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """The address of a listener that is too busy to take another connection."""
    with ExitStack() as stack:
        place = stack.enter_context(socket.create_server((LOCAL, 0), backlog=0)).getsockname()
        with contextlib.suppress(TimeoutError):
            while True:
                stack.enter_context(socket.create_connection(place, 0.05))
        yield place


def unused_place() -> tuple[str, int]:
    """Return an address where connections are refused."""
    with socket.create_server((LOCAL, 0)) as sock:
        place: tuple[str, int] = sock.getsockname()
        return place


async def until_closed(session: muxado.Session) -> None:
    await session.wait_closed()


async def test_a_dead_first_address_does_not_hold_the_dial_up(
    name: Name, full: tuple[str, int]
) -> None:
    async with muxado.serve(until_closed, LOCAL, 0) as server:
        name(full, server.addresses[0])
        async with muxado.connect("several", 1, timeout=None) as session:
            assert session.remote_address == server.addresses[0]
            assert await session.ping() >= 0


async def test_an_address_that_refuses_is_passed_over_at_once(name: Name) -> None:
    async with muxado.serve(until_closed, LOCAL, 0) as server:
        name(unused_place(), unused_place(), server.addresses[0])
        dial = muxado.connect("several", 1, happy_eyeballs_delay=1000.0, timeout=None)
        async with dial as session:
            assert await session.ping() >= 0


async def test_all_addresses_that_fail_are_told(name: Name) -> None:
    places = unused_place(), unused_place()
    name(*places)
    with pytest.raises(ConnectionRefusedError, match="no address of several:1"):
        await muxado.connect("several", 1)


async def test_a_dial_that_is_cancelled_leaves_no_connection(
    name: Name, full: tuple[str, int]
) -> None:
    name(full, full)
    async with running(as_coroutine(muxado.connect("several", 1))) as dial:
        await asyncio.sleep(0)
        await cancel(dial)


async def as_coroutine(dial: Any) -> muxado.Session:
    session: muxado.Session = await dial
    return session


async def test_the_time_limit_is_for_all_addresses(name: Name, full: tuple[str, int]) -> None:
    name(full, full)
    with pytest.raises(TimeoutError, match=r"no session with several:1 within 0\.3 seconds"):
        await muxado.connect("several", 1, timeout=0.3)


async def test_a_unix_socket_with_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as stack:
        listening.bind(path)
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(path)
        with pytest.raises(TimeoutError):
            await muxado.connect(path=path, timeout=0.1)
        async with running(as_coroutine(muxado.connect(path=path))) as dial:
            while not dial.done():
                listening.accept()[0].close()
                await asyncio.sleep(0.01)
            (await dial).abort()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_small_messages_are_not_held_back_on_sockets_of_ones_own(
    tls: Tls, secure: bool
) -> None:
    accepted: asyncio.Queue[muxado.Session] = asyncio.Queue()

    async def handle(session: muxado.Session) -> None:
        accepted.put_nowait(session)
        await session.wait_closed()

    listening = socket.create_server((LOCAL, 0))
    place = listening.getsockname()
    security: dict[str, Any] = {"ssl": tls.server} if secure else {}
    async with muxado.serve(handle, sock=listening, **security):
        sock = socket.socket()  # whose `proto` says nothing of TCP
        sock.connect(place)
        options: dict[str, Any] = {}
        if secure:
            options = {"ssl": tls.client, "server_hostname": "localhost"}
        async with muxado.connect(sock=sock, **options) as client:
            for session in (client, await accepted.get()):
                under: Any = session.get_extra_info("socket")
                assert under.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_server_is_not_held_up_by_a_handler_that_cant_be_cancelled() -> None:
    freed = asyncio.Event()
    stuck = asyncio.Event()

    async def handle(session: muxado.Session) -> None:
        while not freed.is_set():
            stuck.set()
            with contextlib.suppress(asyncio.CancelledError):
                await freed.wait()

    config = Config(close_timeout=0.1)
    async with muxado.serve(handle, LOCAL, 0, config=config) as server:
        client = await muxado.connect(*server.addresses[0])
        await stuck.wait()
        client.close()
        await client.wait_closed()
    assert not freed.is_set()
    freed.set()
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_unknown_argument_is_refused_at_the_call(tls: Tls) -> None:
    with pytest.raises(TypeError, match=r"connect\(\) got an unexpected .* 'patience'"):
        muxado.connect(LOCAL, 1, patience=5)
    with pytest.raises(muxado.UsageError, match="pass ssl="):
        muxado.connect(LOCAL, 1, ssl_handshake_timeout=5)
    with pytest.raises(muxado.UsageError, match="for host and port"):
        muxado.connect(path="x", local_addr=(LOCAL, 0))
    with pytest.raises(muxado.UsageError, match="ssl_handshake_timeout"):
        muxado.serve(until_closed, LOCAL, 0, ssl=tls.server, ssl_handshake_timeout=-1)


async def test_time_limits_of_any_size(tls: Tls) -> None:
    handshake: dict[str, Any] = {"ssl": tls.server, "ssl_handshake_timeout": float("inf")}
    async with muxado.serve(until_closed, LOCAL, 0, **handshake) as server:
        for timeout in (None, 1e10, float("inf")):
            dial = muxado.connect(*server.addresses[0], ssl=tls.client, timeout=timeout)
            async with dial as session:
                assert await session.ping() >= 0
