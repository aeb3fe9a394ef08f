"""`serve_streams` in the three front ends: a handler for each stream, whichever session has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

import muxado
import muxado.sync
import muxado.trio
from tests.patience import patience

HOST = "127.0.0.1"
PATIENCE = patience(10)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def trio_server(serve: object, handler: object, **kwds: object) -> AsyncIterator[int]:
    """Run a server of trio's, and give its port."""
    async with trio.open_nursery() as nursery:
        server: muxado.trio.Server = await nursery.start(
            lambda task_status: serve(handler, HOST, 0, task_status=task_status, **kwds)  # type: ignore[operator]
        )
        yield server.addresses[0][1]
        server.close()


@pytest.mark.anyio
async def test_asyncio_answers_the_streams_of_every_session() -> None:
    async def echo(stream: muxado.Stream) -> None:
        await stream.write(await stream.read(100))

    async with muxado.serve_streams(echo, HOST, 0) as server:
        assert repr(server) == f"<Server {server.addresses[0]!r} sessions=0>"
        for _ in range(2):
            connecting = muxado.connect(*server.addresses[0])
            async with connecting as session, session.open() as stream:
                await stream.write(b"hello")
                assert await stream.read(100) == b"hello"


def test_threads_answer_the_streams_of_every_session() -> None:
    def echo(stream: muxado.sync.Stream) -> None:
        stream.sendall(stream.recv(100))

    with muxado.sync.serve_streams(echo, HOST, 0) as server:
        for _ in range(2):
            with muxado.sync.connect(*server.addresses[0][:2]) as session, session.open() as stream:
                stream.settimeout(PATIENCE)
                stream.sendall(b"hello")
                assert stream.recv(100) == b"hello"


def test_trio_answers_the_streams_of_every_session() -> None:
    async def echo(stream: muxado.trio.Stream) -> None:
        await stream.send_all(await stream.receive_some(100))

    async def main() -> None:
        async with trio_server(muxado.trio.serve_streams, echo) as port:
            for _ in range(2):
                async with muxado.trio.connect(HOST, port) as session, session.open() as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_some(100) == b"hello"

    with_timeout(main)


def with_timeout(main: object) -> None:
    async def bounded() -> None:
        with trio.fail_after(PATIENCE):
            await main()  # type: ignore[operator]

    trio.run(bounded)


# limit= and cancel_on_reset=


@pytest.mark.anyio
async def test_asyncio_passes_limit_and_cancel_on_reset_on() -> None:
    running = most = 0
    both = asyncio.Barrier(2)
    began = asyncio.Event()
    cancelled = asyncio.Event()

    async def work(stream: muxado.Stream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if await stream.read(1) == b"w":
                began.set()
                await asyncio.Event().wait()
            await both.wait()
            await stream.write(b"done")
        except asyncio.CancelledError:
            cancelled.set()
            raise
        finally:
            running -= 1

    async def ask(session: muxado.Session) -> None:
        async with session.open() as stream:
            await stream.write(b"x")
            assert await stream.read() == b"done"

    serving = muxado.serve_streams(work, HOST, 0, limit=2, cancel_on_reset=True)
    async with serving as server, muxado.connect(*server.addresses[0]) as session:
        await asyncio.gather(*[ask(session) for _ in range(8)])
        assert most == 2
        waiting = session.open()
        await waiting.write(b"w")
        await began.wait()
        waiting.reset()
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()


def test_threads_pass_limit_on() -> None:
    running = most = 0

    def work(stream: muxado.sync.Stream) -> None:
        nonlocal running, most
        running += 1  # only one of them at a time comes here
        most = max(most, running)
        stream.sendall(stream.recv(1))
        running -= 1

    with (
        muxado.sync.serve_streams(work, HOST, 0, limit=1) as server,
        muxado.sync.connect(*server.addresses[0][:2]) as session,
    ):
        streams = [session.open(eager=True) for _ in range(5)]
        for stream in streams:
            stream.settimeout(PATIENCE)
            stream.sendall(b"x")
        assert [stream.recv(1) for stream in streams] == [b"x"] * 5
        for stream in streams:
            stream.close()
    assert most == 1


def test_trio_passes_limit_and_cancel_on_reset_on() -> None:
    async def main() -> None:
        running = most = 0
        both = trio.Event()
        began = trio.Event()
        cancelled = trio.Event()

        async def work(stream: muxado.trio.Stream) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 2:
                both.set()
            try:
                if await stream.receive_some(1) == b"w":
                    began.set()
                    await trio.sleep_forever()
                await both.wait()  # none ends before two have run at once
                await stream.send_all(b"done")
            except trio.Cancelled:
                cancelled.set()
                raise
            finally:
                running -= 1

        async def ask(session: muxado.trio.Session) -> None:
            async with session.open() as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some(100) == b"done"

        serving = trio_server(muxado.trio.serve_streams, work, limit=2, cancel_on_reset=True)
        async with serving as port, muxado.trio.connect(HOST, port) as session:
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(ask, session)
            assert most == 2
            waiting = session.open()
            await waiting.send_all(b"w")
            await began.wait()
            waiting.reset()
            await cancelled.wait()

    with_timeout(main)


# The wrong kind of handler


@pytest.mark.anyio
async def test_asyncio_a_handler_of_sessions_is_told_of_serve(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(session: muxado.Session) -> None:
        await session.accept()

    serving = muxado.serve_streams(handler, HOST, 0)  # type: ignore[arg-type]
    async with serving as server, muxado.connect(*server.addresses[0]) as session:
        stream = session.open(eager=True)
        assert await stream.wait_reset() == muxado.ErrorCode.INTERNAL_ERROR
    assert "a handler of sessions is for serve()" in logged(caplog)


@pytest.mark.anyio
async def test_asyncio_a_handler_of_streams_is_told_of_serve_streams(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(stream: muxado.Stream) -> None:
        await stream.read(1)

    serving = muxado.serve(handler, HOST, 0)  # type: ignore[arg-type]
    async with serving as server, muxado.connect(*server.addresses[0]) as session:
        await session.wait_closed()
    assert "a handler of streams is for serve_streams()" in logged(caplog)


def test_threads_handlers_are_told_of_the_other_function(caplog: pytest.LogCaptureFixture) -> None:
    def of_sessions(session: muxado.sync.Session) -> None:
        session.accept()

    def of_streams(stream: muxado.sync.Stream) -> None:
        stream.recv(1)

    server = muxado.sync.serve_streams(of_sessions, HOST, 0)  # type: ignore[arg-type]
    with server, muxado.sync.connect(*server.addresses[0][:2]) as session:
        stream = session.open(eager=True)
        assert stream.wait_reset(PATIENCE) == muxado.ErrorCode.INTERNAL_ERROR
    assert "a handler of sessions is for serve()" in logged(caplog)
    caplog.clear()
    server = muxado.sync.serve(of_streams, HOST, 0)  # type: ignore[arg-type]
    with server, muxado.sync.connect(*server.addresses[0][:2]) as session:
        session.wait_closed(PATIENCE)
    assert "a handler of streams is for serve_streams()" in logged(caplog)


def test_trio_handlers_are_told_of_the_other_function(caplog: pytest.LogCaptureFixture) -> None:
    async def of_sessions(session: muxado.trio.Session) -> None:
        await session.accept()

    async def of_streams(stream: muxado.trio.Stream) -> None:
        await stream.receive_some(1)

    async def main() -> None:
        serving = trio_server(muxado.trio.serve_streams, of_sessions)
        async with serving as port, muxado.trio.connect(HOST, port) as session:
            stream = session.open(eager=True)
            assert await stream.wait_reset() == muxado.ErrorCode.INTERNAL_ERROR
            await stream.aclose()
        assert "a handler of sessions is for serve()" in logged(caplog)
        caplog.clear()
        serving = trio_server(muxado.trio.serve, of_streams)
        async with serving as port, muxado.trio.connect(HOST, port) as session:
            await session.wait_closed()
        assert "a handler of streams is for serve_streams()" in logged(caplog)

    with_timeout(main)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return the notes of the errors that were logged."""
    found: list[str] = []
    for record in caplog.records:
        exc = record.exc_info[1] if record.exc_info else None
        found += getattr(exc, "__notes__", [])
    return "\n".join(found)


def test_what_is_no_function_is_refused_at_once() -> None:
    with pytest.raises(muxado.UsageError, match="handler must be a function"):
        muxado.serve_streams("handler", HOST, 0)  # type: ignore[arg-type]
    with pytest.raises(muxado.UsageError, match="handler must be a function"):
        muxado.sync.serve_streams("handler", HOST, 0)  # type: ignore[arg-type]
    with pytest.raises(muxado.UsageError, match="handler must be a function"):
        trio.run(muxado.trio.serve_streams, "handler", HOST, 0)  # type: ignore[arg-type]
