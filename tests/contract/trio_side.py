"""The front end for trio, as the contract suite uses it: trio runs in a thread.

The errors of trio's that it raises are looked at here: ours is the cause, and the kind tells
whose doing the end was.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import trio

import muxado
import muxado.trio
from muxado import CloseReason, Config, ErrorCode, SessionStats
from tests.trio.cancelling import echo

from .sides import PATIENCE, FrontEnd, ListenerSide, Side, StreamSide, reason_by_peer

T = TypeVar("T")


class Runner:
    """A run of trio in a thread."""

    token: trio.lowlevel.TrioToken
    nursery: trio.Nursery
    stop: trio.Event

    def call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        timeout: float = PATIENCE,
    ) -> T:
        """Run an async function there; TimeoutError cancels it. Raises muxado's own errors."""

        async def bounded() -> T:
            with trio.fail_after(timeout):
                return await function(*args)

        try:
            return trio.from_thread.run(bounded, trio_token=self.token)
        except trio.TooSlowError:
            raise TimeoutError("timed out") from None
        except trio.BusyResourceError as exc:
            raise muxado.StreamBusy(str(exc)) from exc
        except (
            trio.ClosedResourceError,
            trio.BrokenResourceError,
            trio.EndOfChannel,
        ) as exc:
            raise _own(exc) from exc

    def do(self, function: Callable[[], T]) -> T:
        """Run a plain function there."""
        return trio.from_thread.run_sync(function, trio_token=self.token)

    @contextmanager
    def enter(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter an async context manager in a task of its own."""
        over: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        leave = trio.Event()

        async def hold(task_status: trio.TaskStatus[T]) -> None:
            started = False
            try:
                async with manager as value:
                    started = True
                    task_status.started(value)
                    await leave.wait()
            except Exception as exc:
                if not started:
                    raise
                over.put(exc)
            else:
                over.put(None)

        value = self.call(partial(self.nursery.start, hold))
        try:
            yield value
        finally:
            self.do(leave.set)
            failure = over.get(timeout=PATIENCE)
            if failure is not None:
                raise failure

    @contextmanager
    def run(self) -> Iterator[None]:
        ready = threading.Event()

        async def main() -> None:
            self.token = trio.lowlevel.current_trio_token()
            self.stop = trio.Event()
            async with trio.open_nursery() as self.nursery:
                ready.set()
                await self.stop.wait()

        failures: list[BaseException] = []

        def run() -> None:
            try:
                trio.run(main)
            except BaseException as exc:
                failures.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            yield
        finally:
            self.do(self.stop.set)
            thread.join(PATIENCE)
            assert not thread.is_alive()
            assert failures == []


def _own(exc: Exception) -> BaseException:
    own = exc.__cause__
    assert isinstance(own, muxado.MuxadoError), repr(exc)
    if isinstance(exc, trio.ClosedResourceError):
        assert not reason_by_peer(own), own
    else:
        assert reason_by_peer(own), own
    if isinstance(exc, trio.EndOfChannel):
        assert isinstance(own, muxado.SessionClosed)
    return own


class TrioStream(StreamSide):
    def __init__(self, runner: Runner, stream: muxado.trio.Stream) -> None:
        self.runner = runner
        self.stream = stream
        self.id = stream.id
        self.type = stream.type

    def read(self, n: int = 65536, timeout: float = PATIENCE) -> bytes:
        return self.runner.call(self.stream.receive_some, n, timeout=timeout)

    def write(self, data: bytes, timeout: float = PATIENCE) -> None:
        self.runner.call(self.stream.send_all, data, timeout=timeout)

    def write_eof(self) -> None:
        self.runner.call(self.stream.send_eof)

    def close(self) -> None:
        self.runner.call(self.stream.aclose)

    def reset(self, code: int = ErrorCode.STREAM_CANCELLED) -> None:
        self.runner.do(lambda: self.stream.reset(code))

    def wait_reset(self) -> int | None:
        return self.runner.call(self.stream.wait_reset)

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        return self.runner.do(lambda: self.stream.read_nowait(n, callback))

    def write_nowait(self, data: bytes, callback: Callable[[], object] | None = None) -> bool:
        return self.runner.do(lambda: self.stream.write_nowait(data, callback))

    def on_end(self, callback: Callable[[], object]) -> None:
        self.runner.do(lambda: self.stream.on_end(callback))


class TrioSide(Side):
    def __init__(self, runner: Runner, session: muxado.trio.Session) -> None:
        super().__init__()
        self.runner = runner
        self.session = session

    def _open(self, type: int | None, priority: int, eager: bool) -> StreamSide:
        stream = self.runner.do(
            lambda: self.session.open(type=type, priority=priority, eager=eager)
        )
        return TrioStream(self.runner, stream)

    def _accept(self, timeout: float) -> StreamSide:
        return TrioStream(self.runner, self.runner.call(self.session.accept, timeout=timeout))

    def iterate(self) -> list[int]:
        async def iterate() -> list[int]:
            ids = []
            async for stream in self.session:
                ids.append(stream.id)
                await stream.aclose()
            return ids

        return self.runner.call(iterate)

    def serve(self, handler: Callable[[StreamSide], None], limit: int | None = None) -> None:
        threads = trio.CapacityLimiter(200)

        async def handle(stream: muxado.trio.Stream) -> None:
            side = TrioStream(self.runner, stream)
            await trio.to_thread.run_sync(handler, side, limiter=threads)

        async def serve() -> None:
            await self.session.serve(handle, limit=limit)

        self.runner.call(serve)

    def ping(self) -> float:
        return self.runner.call(self.session.ping)

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        self.runner.do(lambda: self.session.go_away(code, debug))

    def on_draining(self, callback: Callable[[], object]) -> None:
        self.runner.do(lambda: self.session.on_draining(callback))

    def on_stream(self, callback: Callable[[muxado.trio.Stream], object] | None) -> None:
        self.runner.do(lambda: self.session.on_stream(callback))

    def shutdown(self, timeout: float | None = PATIENCE) -> None:
        self.runner.call(self.session.shutdown, timeout)

    def close(self) -> None:
        self.runner.do(self.session.close)

    def wait_closed(self) -> CloseReason:
        return self.runner.call(self.session.wait_closed)

    def abort(self, code: int = 2) -> None:
        self.runner.do(lambda: self.session.abort(code))

    def stats(self) -> SessionStats:
        return self.runner.do(self.session.stats)

    @property
    def config(self) -> Config:
        return self.session.config

    @property
    def closed(self) -> bool:
        return self.session.closed

    @property
    def close_reason(self) -> CloseReason | None:
        return self.session.close_reason


class TrioListener(ListenerSide):
    def __init__(self, runner: Runner, listener: muxado.trio.Listener) -> None:
        self.runner = runner
        self.listener = listener
        self.port = listener.addresses[0][1]

    def accept(self) -> Side:
        return TrioSide(self.runner, self.runner.call(self.listener.accept))


class TrioFrontEnd(FrontEnd):
    name = "trio"

    def __init__(self) -> None:
        self.runner = Runner()

    @contextmanager
    def connect(self, port: int, tls: ssl.SSLContext | None, config: Config) -> Iterator[Side]:
        manager = muxado.trio.connect("127.0.0.1", port, ssl=tls, config=config)
        with self.runner.enter(manager) as session:
            yield TrioSide(self.runner, session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        if sock is None:
            manager = muxado.trio.listen("127.0.0.1", 0, ssl=tls, config=config)
        else:
            ours = trio.socket.from_stdlib_socket(sock)
            manager = muxado.trio.listen(sock=ours, ssl=tls, config=config)
        with self.runner.enter(manager) as listener:
            yield TrioListener(self.runner, listener)

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None) -> Iterator[int]:
        async def handle(session: muxado.trio.Session) -> None:
            await session.serve(echo)

        @asynccontextmanager
        async def serving() -> AsyncIterator[muxado.trio.Server]:
            async with trio.open_nursery() as nursery:
                start = partial(muxado.trio.serve, handle, "127.0.0.1", 0, ssl=tls)
                server: muxado.trio.Server = await nursery.start(start)
                yield server
                server.close()

        with self.runner.enter(serving()) as server:
            yield server.addresses[0][1]

    @contextmanager
    def run(self) -> Iterator[None]:
        with self.runner.run():
            yield
