"""What a forked child does to the sessions of its parent under trio: nothing."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

import muxado
import muxado.trio
from muxado import Config
from muxado.trio import Session
from tests.certificates import Tls
from tests.forking import living_child, needs_fork

pytestmark = needs_fork

# Nothing else ends a session that its peer's end does not reach.
PATIENT = Config(close_timeout=600.0, ping_interval=None)

KINDS = ["tcp", "tls", "unix"]


@asynccontextmanager
async def connected(kind: str, tls: Tls, path: str) -> AsyncIterator[tuple[Session, Session]]:
    options: dict[str, Any] = {"config": PATIENT}
    if kind == "unix":
        place: dict[str, Any] = {"path": path}
    else:
        place = {"host": "127.0.0.1", "port": 0}
    secure = kind == "tls"
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(
            muxado.trio.listen(**place, ssl=tls.server if secure else None, **options)
        )
        if "port" in place:
            place["port"] = listener.addresses[0][1]
        client = await stack.enter_async_context(
            muxado.trio.connect(**place, ssl=tls.client if secure else None, **options)
        )
        yield client, await listener.accept()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_close_is_heard_at_once_though_a_forked_child_lives(
    kind: str, tls: Tls, socket_path: str
) -> None:
    async with connected(kind, tls, socket_path) as (client, server):
        await client.ping()
        with living_child():
            client.close()
            await client.wait_closed()
            await server.wait_closed()
        assert server.close_reason is not None
        assert server.close_reason.clean


@pytest.mark.parametrize("kind", KINDS)
async def test_an_abort_is_heard_at_once_though_a_forked_child_lives(
    kind: str, tls: Tls, socket_path: str
) -> None:
    async with connected(kind, tls, socket_path) as (client, server):
        await client.ping()
        with living_child():
            server.abort(7)
            await client.wait_closed()
            await server.wait_closed()
        assert client.close_reason is not None
        assert client.close_reason.by_peer


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_goes_on_though_a_forked_child_gives_it_up(
    kind: str, tls: Tls, socket_path: str
) -> None:
    async with connected(kind, tls, socket_path) as (client, server):

        def child() -> None:
            for session in (client, server):
                assert session.closed
                with pytest.raises(muxado.SessionError, match="parent"):
                    session.open()
                session.close()
                session.abort()

        async with client.open() as stream:
            await stream.send_all(b"before")
            async with await server.accept() as other:
                assert await other.receive_some(6) == b"before"
                with living_child(child):
                    await other.send_all(b"after")
                    assert await stream.receive_some(6) == b"after"
                    await client.ping()


async def test_a_forked_child_keeps_no_listener_open() -> None:
    async with muxado.trio.listen("127.0.0.1", 0) as listener:
        address = listener.addresses[0]
        with living_child():
            await listener.aclose()
            with pytest.raises(OSError):  # noqa: PT011
                await trio.open_tcp_stream(*address)


async def test_a_worker_thread_of_a_child_can_end_a_session_of_the_parent() -> None:
    def end(session: Session) -> None:
        session.close()
        session.abort()

    async with connected("tcp", Tls(), "") as (client, server):

        def child() -> None:
            worker = threading.Thread(target=end, args=(client,))
            failed: list[object] = []
            threading.excepthook = failed.append
            worker.start()
            worker.join()
            assert not failed

        with living_child(child):
            await client.ping()
        assert not server.closed
