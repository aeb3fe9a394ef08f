"""A server of each front end, in a thread of its own, whose sessions are only held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

import trio

import muxado
import muxado.carriers.websockets
import muxado.carriers.websockets.sync
import muxado.carriers.websockets.trio
import muxado.sync
import muxado.trio
from tests.patience import patience

PATIENCE = patience(10)


class Server(Protocol):
    """What is the same in every front end's server."""

    @property
    def addresses(self) -> list[Any]: ...

    @property
    def sessions(self) -> list[Any]: ...

    def stats(self) -> muxado.ServerStats: ...


@contextmanager
def on_asyncio(serve: Any = muxado.serve, **options: Any) -> Iterator[Server]:
    """Run a server that serves no stream in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

    async def start() -> Any:
        return await serve(hold, "127.0.0.1", 0, **options)

    async def stop(server: muxado.Server) -> None:
        server.close()
        await server.wait_closed()

    async def hold(session: muxado.Session) -> None:
        await session.wait_closed()

    try:
        server = call(start())
        try:
            yield server
        finally:
            call(stop(server))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


@contextmanager
def on_threads(serve: Any = muxado.sync.serve, **options: Any) -> Iterator[Server]:
    with serve(muxado.sync.Session.wait_closed, "127.0.0.1", 0, **options) as server:
        yield server


@contextmanager
def on_trio(serve: Any = muxado.trio.serve, **options: Any) -> Iterator[Server]:
    started = threading.Event()
    running: list[Any] = []

    async def hold(session: muxado.trio.Session) -> None:
        await session.wait_closed()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(hold, "127.0.0.1", 0, task_status=task_status, **options)
            )
            running.extend([server, trio.lowlevel.current_trio_token()])
            started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(PATIENCE)
    server, token = running
    try:
        yield server
    finally:
        trio.from_thread.run_sync(server.close, trio_token=token)
        thread.join(PATIENCE)


Serve = Callable[..., AbstractContextManager[Server]]

FRONT_ENDS: dict[str, Serve] = {"asyncio": on_asyncio, "threads": on_threads, "trio": on_trio}

WEBSOCKETS: dict[str, Serve] = {
    "asyncio": partial(on_asyncio, muxado.carriers.websockets.serve),
    "threads": partial(on_threads, muxado.carriers.websockets.sync.serve),
    "trio": partial(on_trio, muxado.carriers.websockets.trio.serve),
}


def until(test: Callable[[], bool]) -> None:
    """Wait until something that other threads do is done."""
    turn = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if test():
            return
        turn.wait(0.001)
    raise AssertionError("it did not happen")
