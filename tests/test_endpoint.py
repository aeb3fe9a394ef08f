"""Where to dial and listen: the same for every front end, said before anything is waited for."""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio

import muxado
import muxado.sync
import muxado.trio
from muxado.endpoint import check_timeout, in_turn

Call = Callable[..., Any]


def on_asyncio(call: Call, *args: Any, **kwds: Any) -> None:
    async def main() -> None:
        await call(*args, **kwds)

    asyncio.run(main())


def in_threads(call: Call, *args: Any, **kwds: Any) -> None:
    call(*args, **kwds)


def on_trio(call: Call, *args: Any, **kwds: Any) -> None:
    async def main() -> None:
        pending = call(*args, **kwds)
        if isinstance(pending, Awaitable):  # serve is a coroutine function there
            await pending
        else:
            async with pending:
                pass

    trio.run(main)


async def handle(session: object) -> None:
    """Do nothing."""


FRONT_ENDS: dict[str, tuple[Call, Call, Call, Call]] = {
    "asyncio": (on_asyncio, muxado.connect, muxado.listen, muxado.serve),
    "sync": (in_threads, muxado.sync.connect, muxado.sync.listen, muxado.sync.serve),
    "trio": (on_trio, muxado.trio.connect, muxado.trio.listen, muxado.trio.serve),
}
TLS = ssl.create_default_context()
SERVER_TLS = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

NOWHERE: list[tuple[dict[str, Any], str]] = [
    ({}, "give either"),
    ({"port": 1}, "port= needs host="),
    ({"host": "127.0.0.1"}, "host= needs port="),
    ({"host": "", "port": 1}, "host="),
    ({"host": "", "port": 1, "ssl": True}, "host="),
    ({"host": ["127.0.0.1"], "port": 1}, "host="),
    ({"host": b"127.0.0.1", "port": 1}, "host="),
    ({"host": "127.0.0.1", "port": "1"}, "port="),
    ({"host": "127.0.0.1", "port": True}, "port="),
    ({"host": "127.0.0.1", "port": 0}, "port="),
    ({"host": "127.0.0.1", "port": 65536}, "port="),
    ({"path": ""}, "path="),
    ({"path": 7}, "path="),
    ({"path": "x", "port": 1}, "give either"),
    ({"sock": 7}, "sock="),
    ({"host": "127.0.0.1", "port": 1, "server_hostname": "a.example"}, "pass ssl="),
    ({"path": "x", "server_hostname": "a.example"}, "pass ssl="),
    ({"path": "x", "ssl": True}, "needs server_hostname="),
    ({"host": "127.0.0.1", "port": 1, "ssl": True, "server_hostname": b"a"}, "server_hostname="),
    ({"host": "127.0.0.1", "port": 1, "ssl": "yes"}, "ssl="),
    ({"host": "127.0.0.1", "port": 1, "timeout": 0}, "timeout="),
    ({"host": "127.0.0.1", "port": 1, "timeout": -1.0}, "timeout="),
    ({"host": "127.0.0.1", "port": 1, "timeout": math.nan}, "timeout="),
    ({"host": "127.0.0.1", "port": 1, "timeout": "5"}, "timeout="),
    ({"host": "a..b", "port": 1}, "host="),
    ({"host": "a\0b", "port": 1}, "host="),
    ({"host": "127.0.0.1", "port": 1, "ssl": True, "server_hostname": ".a"}, "server_hostname="),
    ({"host": "127.0.0.1", "port": 1, "ssl": SERVER_TLS}, "context for servers"),
    ({"host": "127.0.0.1", "port": 1, "config": {}}, "config="),
    ({"path": "a\0b"}, "path="),
]

NO_PLACE: list[tuple[dict[str, Any], str]] = [
    ({}, "give either"),
    ({"host": "127.0.0.1"}, "host= needs port="),
    ({"host": [], "port": 0}, "host="),
    ({"host": [b"127.0.0.1"], "port": 0}, "host="),
    ({"host": "a..b", "port": 0}, "host="),
    ({"port": -1}, "port="),
    ({"port": 65536}, "port="),
    ({"port": "0"}, "port="),
    ({"path": ""}, "path="),
    ({"path": "x", "port": 0}, "give either"),
    ({"sock": "x"}, "sock="),
    ({"port": 0, "ssl": True}, "needs a certificate"),
    ({"port": 0, "ssl": "x"}, "ssl="),
    ({"port": 0, "ssl": TLS}, "context for clients"),
    ({"port": 0, "config": {}}, "config="),
    ({"port": 0, "backlog": 0}, "backlog="),
    ({"port": 0, "backlog": "many"}, "backlog="),
    ({"port": 0, "reuse_port": 1}, "reuse_port="),
    ({"path": "x", "reuse_port": True}, "reuse_port= is for host and port"),
]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize(("arguments", "says"), NOWHERE)
def test_what_cant_be_dialled_is_refused_alike(
    front_end: str, arguments: dict[str, Any], says: str
) -> None:
    run, connect, _, _ = FRONT_ENDS[front_end]
    with pytest.raises(muxado.UsageError, match=says):
        run(connect, **arguments)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize(("arguments", "says"), NO_PLACE)
def test_where_nothing_can_listen_is_refused_alike(
    front_end: str, arguments: dict[str, Any], says: str
) -> None:
    run, _, listen, serve = FRONT_ENDS[front_end]
    with pytest.raises(muxado.UsageError, match=says):
        run(listen, **arguments)
    with pytest.raises(muxado.UsageError, match=says):
        run(serve, handle, **arguments)


def test_a_time_limit_is_of_any_length() -> None:
    assert check_timeout(30 * 86400) == 30 * 86400
    assert check_timeout(math.inf) is None
    assert check_timeout(None) is None


def test_the_families_of_a_name_take_turns() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, "a"), (six, "b"), (six, "a"), (four, "c"), (six, "d")]
    assert in_turn(found) == [(six, "a"), (four, "c"), (six, "b"), (six, "d")]
    assert in_turn([]) == []


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_handler_that_cant_be_called_is_refused_alike(front_end: str) -> None:
    run, _, _, serve = FRONT_ENDS[front_end]
    with pytest.raises(muxado.UsageError, match="handler"):
        run(serve, None, port=0)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_list_of_hosts_can_be_listened_on(front_end: str) -> None:
    run, _, listen, _ = FRONT_ENDS[front_end]
    with ExitStack() as stack:
        seen: list[Any] = []

        def look(**kwds: Any) -> Any:
            opened = listen(**kwds)
            if front_end == "sync":
                seen.extend(stack.enter_context(opened).addresses)
            return opened

        hosts = ["127.0.0.1", "127.0.0.2"]
        if front_end == "sync":
            run(look, host=hosts, port=0)
        elif front_end == "trio":

            async def main() -> None:
                async with listen(hosts, 0) as listener:
                    seen.extend(listener.addresses)
                    assert "127.0.0.2" in repr(listener)

            trio.run(main)
        else:

            async def main() -> None:
                async with listen(hosts, 0) as listener:
                    seen.extend(listener.addresses)
                    assert "127.0.0.2" in repr(listener)

            asyncio.run(main())
        assert sorted(place[0] for place in seen) == hosts  # asyncio keeps no order


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's own")
def test_an_abstract_socket_is_reached(front_end: str) -> None:
    run, connect, _, _ = FRONT_ENDS[front_end]
    path = f"\0muxado-test-{os.getpid()}-{front_end}"
    with muxado.sync.listen(path=path) as listener:
        accepted: list[muxado.sync.Session] = []

        def dial(**kwds: Any) -> Any:
            pending = connect(**kwds)
            if front_end == "sync":
                pending.close()
            return pending

        if front_end == "asyncio":

            async def main() -> None:
                async with connect(path=path):
                    pass

            asyncio.run(main())
        else:
            run(dial, path=path)
        accepted.append(listener.accept(30))
        accepted[0].close()
        accepted[0].wait_closed(30)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_server_that_says_nothing_is_given_up_after_the_timeout(front_end: str) -> None:
    run, connect, _, _ = FRONT_ENDS[front_end]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"no session with .* within 0\.2 s"):
            run(connect, "127.0.0.1", port, ssl=TLS, timeout=0.2)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_port_is_shared_by_those_who_ask_for_it(front_end: str) -> None:
    run, _, listen, _ = FRONT_ENDS[front_end]

    async def listen_and_close_later(**kwds: Any) -> None:
        async with listen(**kwds):
            pass

    def listen_and_close(**kwds: Any) -> Any:
        if front_end == "asyncio":
            return listen_and_close_later(**kwds)
        opened = listen(**kwds)
        if front_end == "sync":
            opened.close()
        return opened

    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        place = {"host": "127.0.0.1", "port": other.getsockname()[1]}
        run(listen_and_close, **place, reuse_port=True)
        with pytest.raises(OSError, match="in use"):
            run(listen_and_close, **place)


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["connect", "serve", "listen"])
async def test_a_forgotten_await_warns_and_says_so(call: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "connect": lambda: muxado.connect("127.0.0.1", 1),
        "serve": lambda: muxado.serve(handle, port=0),
        "listen": lambda: muxado.listen(port=0),
    }
    pending = calls[call]()
    with pytest.raises(AttributeError, match="await it"):
        _ = pending.open
    with pytest.warns(RuntimeWarning, match=rf"{call}\(\) was never awaited"):
        del pending


@pytest.mark.parametrize("package", [muxado, muxado.sync, muxado.trio], ids=lambda it: it.__name__)
def test_a_dial_is_given_up_after_30_seconds_unless_told_otherwise(package: Any) -> None:
    for call in (package.connect, package.Dialer):
        assert inspect.signature(call).parameters["timeout"].default == 30.0
